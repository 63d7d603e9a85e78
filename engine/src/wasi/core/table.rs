//! Numbered values: lowest free number first, with a ceiling.

use super::error::{Error, Result};

/// Values by number. A new value gets the lowest free number, as POSIX promises for descriptors.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    /// No slot below this one is free.
    lowest: usize,
    limit: u32,
}

#[derive(Debug)]
enum Slot<T> {
    Free,
    /// Taken by a value that is still being made.
    Reserved,
    Taken(T),
}

impl<T> Table<T> {
    /// An empty table whose numbers stay below `limit`.
    #[must_use]
    pub fn new(limit: u32) -> Table<T> {
        Table { slots: Vec::new(), lowest: 0, limit }
    }

    /// Takes the lowest free number, to be [filled](Table::fill) or [released](Table::release).
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when the table is full.
    pub fn reserve(&mut self) -> Result<u32> {
        let from = self.lowest.min(self.slots.len());
        let free = self.slots[from..].iter().position(|slot| matches!(slot, Slot::Free));
        let number = free.map_or(self.slots.len(), |n| from + n);
        if number >= self.limit as usize {
            return Err(Error::TooManyDescriptors);
        }
        if free.is_none() {
            self.slots.push(Slot::Free);
        }
        self.slots[number] = Slot::Reserved;
        self.lowest = number + 1;
        Ok(number as u32)
    }

    /// Gives a reserved number its value.
    pub fn fill(&mut self, number: u32, value: T) {
        if let Some(slot @ Slot::Reserved) = self.slots.get_mut(number as usize) {
            *slot = Slot::Taken(value);
        }
    }

    /// Gives a reserved number back.
    pub fn release(&mut self, number: u32) {
        if let Some(slot @ Slot::Reserved) = self.slots.get_mut(number as usize) {
            *slot = Slot::Free;
            self.lowest = self.lowest.min(number as usize);
        }
    }

    /// Gives the next number after all used so far to `value`, or leaves that number free.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when there is no such number.
    pub fn push(&mut self, value: Option<T>) -> Result<()> {
        if self.slots.len() >= self.limit as usize {
            return Err(Error::TooManyDescriptors);
        }
        self.slots.push(value.map_or(Slot::Free, Slot::Taken));
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
        match self.slots.get(number as usize) {
            Some(Slot::Taken(value)) => Ok(value),
            _ => Err(Error::BadDescriptor),
        }
    }

    /// Takes the value with this number out and frees the number.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    pub fn remove(&mut self, number: u32) -> Result<T> {
        let value = self.swap(number, Slot::Free)?;
        self.lowest = self.lowest.min(number as usize);
        Ok(value)
    }

    /// Moves the value numbered `from` over the one numbered `to`, which is the result. Moving a
    /// value onto itself changes nothing.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when either is missing.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<Option<T>> {
        self.get(from)?;
        self.get(to)?;
        if from == to {
            return Ok(None);
        }
        let value = self.remove(from)?;
        self.swap(to, Slot::Taken(value)).map(Some)
    }

    /// Puts something in a value's place.
    fn swap(&mut self, number: u32, new: Slot<T>) -> Result<T> {
        match self.slots.get_mut(number as usize) {
            Some(slot @ Slot::Taken(_)) => match std::mem::replace(slot, new) {
                Slot::Taken(value) => Ok(value),
                _ => Err(Error::BadDescriptor),
            },
            _ => Err(Error::BadDescriptor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T>(table: &mut Table<T>, value: T) -> Result<u32> {
        let number = table.reserve()?;
        table.fill(number, value);
        Ok(number)
    }

    #[test]
    fn the_lowest_free_number_comes_first() {
        let mut table = Table::new(10);
        for n in 0..4 {
            assert_eq!(insert(&mut table, n), Ok(n));
        }
        table.remove(2).unwrap();
        table.remove(1).unwrap();
        assert_eq!(insert(&mut table, 7), Ok(1));
        assert_eq!(insert(&mut table, 8), Ok(2));
        assert_eq!(insert(&mut table, 9), Ok(4));
    }

    #[test]
    fn a_full_table_refuses_and_recovers() {
        let mut table = Table::new(2);
        insert(&mut table, 'a').unwrap();
        insert(&mut table, 'b').unwrap();
        assert_eq!(insert(&mut table, 'c'), Err(Error::TooManyDescriptors));
        assert_eq!(table.remove(0), Ok('a'));
        assert_eq!(insert(&mut table, 'd'), Ok(0));
    }

    #[test]
    fn a_reserved_number_is_nobodys() {
        let mut table = Table::new(3);
        insert(&mut table, 'a').unwrap();
        assert_eq!(table.reserve(), Ok(1));
        assert_eq!(insert(&mut table, 'b'), Ok(2));
        assert_eq!(table.get(1), Err(Error::BadDescriptor));
        assert_eq!(table.remove(1), Err(Error::BadDescriptor));
        assert_eq!(table.renumber(0, 1), Err(Error::BadDescriptor));
        table.release(1);
        assert_eq!(insert(&mut table, 'c'), Ok(1));
        table.release(1);
        assert_eq!(table.get(1), Ok(&'c'));
    }

    #[test]
    fn renumbering_replaces_and_never_leaks() {
        let mut table = Table::new(4);
        let (a, b) = (std::rc::Rc::new(()), std::rc::Rc::new(()));
        let from = insert(&mut table, a.clone()).unwrap();
        let to = insert(&mut table, b.clone()).unwrap();
        table.renumber(from, to).unwrap();
        assert_eq!(std::rc::Rc::strong_count(&b), 1);
        assert_eq!(std::rc::Rc::strong_count(&a), 2);
        assert_eq!(table.get(from), Err(Error::BadDescriptor));
        assert_eq!(table.renumber(to, to), Ok(None));
        assert_eq!(table.renumber(to, from), Err(Error::BadDescriptor));
        assert_eq!(table.renumber(u32::MAX, to), Err(Error::BadDescriptor));
        for _ in 0..100_000 {
            let n = insert(&mut table, a.clone()).unwrap();
            drop(table.renumber(n, to).unwrap());
        }
        assert_eq!(std::rc::Rc::strong_count(&a), 2);
    }
}
