//! A guest's open descriptors: its own, or shared by its threads.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Error, Result};
use super::table::Table;

/// Values by number, for one guest. A guest with one thread never takes a lock.
#[derive(Debug)]
pub struct Descriptors<T>(Slots<T>);

#[derive(Debug)]
enum Slots<T> {
    Own(RefCell<Table<Arc<T>>>),
    Shared(Arc<Mutex<Table<Arc<T>>>>),
}

impl<T> Descriptors<T> {
    /// For a guest that has one thread for good.
    #[must_use]
    pub fn own(table: Table<Arc<T>>) -> Descriptors<T> {
        Descriptors(Slots::Own(RefCell::new(table)))
    }

    /// For a guest that may have several threads.
    #[must_use]
    pub fn shared(table: Table<Arc<T>>) -> Descriptors<T> {
        Descriptors(Slots::Shared(Arc::new(Mutex::new(table))))
    }

    /// The same descriptors for another thread; `None` if they are one thread's own.
    #[must_use]
    pub fn for_thread(&self) -> Option<Descriptors<T>> {
        match &self.0 {
            Slots::Own(_) => None,
            Slots::Shared(table) => Some(Descriptors(Slots::Shared(Arc::clone(table)))),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Table<Arc<T>>) -> R) -> R {
        match &self.0 {
            // Nothing that acts on the table comes back to it.
            Slots::Own(table) => act(&mut table.borrow_mut()),
            Slots::Shared(table) => act(&mut table.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// The value with this number.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    pub fn get(&self, number: u32) -> Result<Arc<T>> {
        self.with(|table| table.get(number).cloned())
    }

    /// Makes a value and gives it the lowest free number. The number is taken before `make` has any
    /// effect, so that a full table refuses without a trace.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when the table is full; what `make` says.
    pub fn open<E: From<Error>>(
        &self,
        make: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<u32, E> {
        let number = self.with(Table::reserve)?;
        let made = make();
        self.with(|table| match made {
            Ok(value) => {
                table.fill(number, Arc::new(value));
                Ok(number)
            }
            Err(error) => {
                table.release(number);
                Err(error)
            }
        })
    }

    /// Takes the value with this number out and frees the number.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    pub fn remove(&self, number: u32) -> Result<Arc<T>> {
        self.with(|table| table.remove(number))
    }

    /// Moves the value numbered `from` over the one numbered `to`, which is dropped.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when either is missing.
    pub fn renumber(&self, from: u32, to: u32) -> Result<()> {
        let replaced = self.with(|table| table.renumber(from, to))?;
        // Closed outside the lock: that may take long.
        drop(replaced);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_refuses_before_anything_is_made() {
        for make in [Descriptors::own, Descriptors::shared] {
            let descriptors: Descriptors<u32> = make(Table::new(2));
            assert_eq!(descriptors.open(|| Ok::<_, Error>(1)), Ok(0));
            assert_eq!(descriptors.open(|| Err(Error::Invalid)), Err(Error::Invalid));
            // Meanwhile the number is taken, and stands for nothing yet.
            let inner = descriptors.open(|| {
                assert_eq!(descriptors.get(1), Err(Error::BadDescriptor));
                assert_eq!(descriptors.remove(1), Err(Error::BadDescriptor));
                assert_eq!(descriptors.renumber(0, 1), Err(Error::BadDescriptor));
                let full = descriptors.open(|| -> Result<u32> { unreachable!() });
                assert_eq!(full, Err(Error::TooManyDescriptors));
                Ok::<_, Error>(2)
            });
            assert_eq!(inner, Ok(1));
            assert_eq!(descriptors.get(1).as_deref(), Ok(&2));
            assert_eq!(descriptors.renumber(1, 0), Ok(()));
            assert_eq!(descriptors.get(0).as_deref(), Ok(&2));
            assert_eq!(descriptors.remove(0).as_deref(), Ok(&2));
        }
    }

    #[test]
    fn threads_share_and_single_guests_do_not() {
        assert!(Descriptors::<u32>::own(Table::new(2)).for_thread().is_none());
        let one = Descriptors::shared(Table::new(1000));
        let others: Vec<_> = (0..4).filter_map(|_| one.for_thread()).collect();
        std::thread::scope(|scope| {
            for other in others {
                scope.spawn(move || {
                    for n in 0..100 {
                        let number = other.open(|| Ok::<_, Error>(n)).unwrap();
                        assert_eq!(*other.get(number).unwrap(), n);
                    }
                });
            }
        });
        let open = (0..1000).filter(|&number| one.get(number).is_ok()).count();
        assert_eq!(open, 400);
    }
}
