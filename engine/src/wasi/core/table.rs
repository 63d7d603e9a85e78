//! Numbered descriptors: lowest free number first, with a ceiling.

use super::error::{Error, Result};

/// Values by number. A new value gets the lowest free number, as POSIX promises for descriptors.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<T>>,
    /// No slot below this one is free.
    lowest: usize,
    limit: u32,
}

impl<T> Table<T> {
    /// An empty table whose numbers stay below `limit`.
    #[must_use]
    pub fn new(limit: u32) -> Table<T> {
        Table { slots: Vec::new(), lowest: 0, limit }
    }

    /// The number that [`Table::insert`] would give. Asked before an operation that has effects on
    /// the host, so that a full table refuses it without a trace.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when the table is full.
    pub fn vacancy(&self) -> Result<u32> {
        let used = self.slots[self.lowest..].iter().take_while(|slot| slot.is_some()).count();
        let number = (self.lowest + used) as u32;
        if number < self.limit { Ok(number) } else { Err(Error::TooManyDescriptors) }
    }

    /// Gives `value` the lowest free number.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when the table is full; `value` is dropped.
    pub fn insert(&mut self, value: T) -> Result<u32> {
        let number = self.vacancy()?;
        match self.slots.get_mut(number as usize) {
            Some(slot) => *slot = Some(value),
            None => self.slots.push(Some(value)),
        }
        self.lowest = number as usize + 1;
        Ok(number)
    }

    /// Gives the next number after all used so far to `value`, or leaves that number free.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when there is no such number.
    pub fn push(&mut self, value: Option<T>) -> Result<()> {
        if self.slots.len() >= self.limit as usize {
            return Err(Error::TooManyDescriptors);
        }
        self.slots.push(value);
        Ok(())
    }

    /// The number that [`Table::push`] would give.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether no number was ever used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value with this number.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    pub fn get(&self, number: u32) -> Result<&T> {
        self.slots.get(number as usize).and_then(Option::as_ref).ok_or(Error::BadDescriptor)
    }

    /// The value with this number, to change.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    pub fn get_mut(&mut self, number: u32) -> Result<&mut T> {
        self.slots.get_mut(number as usize).and_then(Option::as_mut).ok_or(Error::BadDescriptor)
    }

    /// Takes the value with this number out and frees the number.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    pub fn remove(&mut self, number: u32) -> Result<T> {
        let slot = self.slots.get_mut(number as usize).ok_or(Error::BadDescriptor)?;
        let value = slot.take().ok_or(Error::BadDescriptor)?;
        self.lowest = self.lowest.min(number as usize);
        Ok(value)
    }

    /// Moves the value numbered `from` over the one numbered `to`, which is dropped. Moving a
    /// value onto itself changes nothing.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when either is missing.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<()> {
        self.get(from)?;
        self.get(to)?;
        if from != to {
            let value = self.remove(from)?;
            *self.get_mut(to)? = value;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_comes_first() {
        let mut table = Table::new(10);
        for n in 0..4 {
            assert_eq!(table.insert(n), Ok(n));
        }
        table.remove(2).unwrap();
        table.remove(1).unwrap();
        assert_eq!(table.insert(7), Ok(1));
        assert_eq!(table.insert(8), Ok(2));
        assert_eq!(table.insert(9), Ok(4));
    }

    #[test]
    fn a_full_table_refuses_and_recovers() {
        let mut table = Table::new(2);
        table.insert('a').unwrap();
        table.insert('b').unwrap();
        assert_eq!(table.vacancy(), Err(Error::TooManyDescriptors));
        assert_eq!(table.insert('c'), Err(Error::TooManyDescriptors));
        assert_eq!(table.remove(0), Ok('a'));
        assert_eq!(table.insert('d'), Ok(0));
    }

    #[test]
    fn renumbering_replaces_and_never_leaks() {
        let mut table = Table::new(4);
        let (a, b) = (std::rc::Rc::new(()), std::rc::Rc::new(()));
        let from = table.insert(a.clone()).unwrap();
        let to = table.insert(b.clone()).unwrap();
        table.renumber(from, to).unwrap();
        assert_eq!(std::rc::Rc::strong_count(&b), 1);
        assert_eq!(std::rc::Rc::strong_count(&a), 2);
        assert_eq!(table.get(from), Err(Error::BadDescriptor));
        assert_eq!(table.renumber(to, to), Ok(()));
        assert_eq!(table.renumber(to, from), Err(Error::BadDescriptor));
        assert_eq!(table.renumber(u32::MAX, to), Err(Error::BadDescriptor));
        for _ in 0..100_000 {
            let n = table.insert(a.clone()).unwrap();
            table.renumber(n, to).unwrap();
        }
        assert_eq!(std::rc::Rc::strong_count(&a), 2);
    }
}
