//! The book of armed faults: who may arm one, until when, and who is told.

mod armed;
mod view;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};

pub use armed::{Active, ArmedFault, Counts};

use crate::model::Fault;

/// Most faults that may be armed at one time.
pub const MAX_FAULTS: usize = 65_536;

/// All armed faults, in the order in which they were armed.
pub type Faults = Arc<[Arc<ArmedFault>]>;

/// Keeps the armed faults; everyone who carries them out watches it.
#[derive(Debug)]
pub struct Book {
    /// `book --Faults--> kernel rules, proxy`: every change, newest state only.
    faults_tx: watch::Sender<Faults>,
    /// Their names; changed only while `faults_tx` is.
    names: Mutex<HashSet<String>>,
    /// Ids are never used again, so that a late count of the kernel cannot reach another fault.
    last_id: AtomicU64,
}

/// Why a fault cannot be armed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Its name is taken.
    #[error("a fault named `{0}` is armed already; remove it first or choose another name")]
    NameTaken(String),
    /// There are [`MAX_FAULTS`] already.
    #[error("{MAX_FAULTS} faults are armed, and no more can be; remove some first")]
    Full,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            faults_tx: watch::Sender::new(Arc::from([])),
            names: Mutex::default(),
            last_id: AtomicU64::new(0),
        }
    }
}

impl Book {
    /// Arms a fault; its time to live starts now. One without a name gets one made from its effect.
    pub fn add(&self, mut fault: Fault) -> Result<Arc<ArmedFault>, BookError> {
        let mut outcome = Err(BookError::Full);
        self.faults_tx.send_if_modified(|faults| {
            if faults.len() >= MAX_FAULTS {
                return false;
            }
            let mut taken = self.names();
            if fault.name.is_empty() {
                let kind = fault.kind();
                let mut names = (1_u64..).map(|number| format!("{kind}-{number}"));
                fault.name = names.find(|name| !taken.contains(name)).unwrap_or_default();
            } else if taken.contains(&fault.name) {
                outcome = Err(BookError::NameTaken(fault.name.clone()));
                return false;
            }
            let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
            let armed = Arc::new(ArmedFault::new(id, fault.clone(), Instant::now()));
            taken.insert(armed.fault.name.clone());
            *faults = faults.iter().cloned().chain([armed.clone()]).collect();
            outcome = Ok(armed);
            true
        });
        outcome
    }

    /// Changes the fault of this number; `None` when it is gone. It keeps its name; the connections that it has hear of it at once, its
    /// counts go on, its time to live starts again.
    pub fn change(&self, id: u64, fault: Fault) -> Option<Arc<ArmedFault>> {
        let mut outcome = None;
        self.faults_tx.send_if_modified(|faults| {
            let Some(place) = faults.iter().position(|armed| armed.id == id) else {
                return false;
            };
            let fault = Fault {
                name: faults[place].fault.name.clone(),
                ..fault.clone()
            };
            let changed = Arc::new(faults[place].changed(fault, Instant::now()));
            *faults = faults
                .iter()
                .enumerate()
                .map(|(index, armed)| if index == place { &changed } else { armed }.clone())
                .collect();
            outcome = Some(changed);
            true
        });
        outcome
    }

    /// The armed fault of this name.
    pub fn get(&self, name: &str) -> Option<Arc<ArmedFault>> {
        self.faults_tx
            .borrow()
            .iter()
            .find(|armed| armed.fault.name == name)
            .cloned()
    }

    /// All armed faults.
    pub fn list(&self) -> Faults {
        self.faults_tx.borrow().clone()
    }

    /// Removes the fault of this name.
    pub fn remove(&self, name: &str) -> Option<Arc<ArmedFault>> {
        self.remove_where(|armed| armed.fault.name == name).pop()
    }

    /// Removes all faults.
    pub fn clear(&self) -> Vec<Arc<ArmedFault>> {
        self.remove_where(|_| true)
    }

    /// Removes the faults that `is_chosen` says; the connections they hold are let go before anyone else is told.
    pub fn remove_where(&self, is_chosen: impl Fn(&ArmedFault) -> bool) -> Vec<Arc<ArmedFault>> {
        let mut removed = Vec::new();
        self.faults_tx.send_if_modified(|faults| {
            removed = faults.iter().filter(|armed| is_chosen(armed)).cloned().collect();
            removed.iter().for_each(|armed| armed.end());
            if removed.is_empty() {
                return false;
            }
            let mut names = self.names();
            for armed in &removed {
                names.remove(&armed.fault.name);
            }
            *faults = faults
                .iter()
                .filter(|armed| !armed.removed.is_cancelled())
                .cloned()
                .collect();
            true
        });
        removed
    }

    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the book: the newest state is there at once, and every change wakes the reader.
    pub fn subscribe(&self) -> watch::Receiver<Faults> {
        self.faults_tx.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RawFault, json};

    fn fault(name: &str, ttl: &str) -> Fault {
        let body = format!(r#"{{"to":{{"port":80}},"effect":{{"type":"refuse"}},"ttl":"{ttl}"}}"#);
        let raw = json::parse::<RawFault>(body.as_bytes()).unwrap();
        Fault {
            name: name.to_owned(),
            ..Fault::try_from(&raw).unwrap()
        }
    }

    fn names(book: &Book) -> Vec<String> {
        book.list().iter().map(|armed| armed.fault.name.clone()).collect()
    }

    #[test]
    fn a_fault_without_a_name_gets_one_that_is_free() {
        let book = Book::default();
        book.add(fault("refuse-2", "1m")).unwrap();
        for expected in ["refuse-1", "refuse-3"] {
            assert_eq!(book.add(fault("", "1m")).unwrap().fault.name, expected);
        }
        assert_eq!(names(&book), ["refuse-2", "refuse-1", "refuse-3"]);
    }

    #[test]
    fn a_name_is_armed_once_and_an_id_never_again() {
        let book = Book::default();
        let first = book.add(fault("a", "1m")).unwrap();
        assert_eq!(
            book.add(fault("a", "1m")).unwrap_err(),
            BookError::NameTaken("a".to_owned())
        );
        assert!(book.remove("a").is_some() && book.remove("a").is_none());
        assert!(first.removed.is_cancelled());
        assert!(book.add(fault("a", "1m")).unwrap().id > first.id);
    }

    #[test]
    fn a_changed_fault_keeps_its_place_and_counts() {
        let book = Book::default();
        let first = book.add(fault("a", "1m")).unwrap();
        book.add(fault("b", "1m")).unwrap();
        first.count_match();
        let changed = book.change(first.id, fault("other", "2m")).unwrap();
        assert_eq!(names(&book), ["a", "b"]);
        assert_eq!((changed.id, changed.fault.ttl.as_secs()), (first.id, 120));
        assert_eq!(changed.count_match(), 1);
        assert!(book.change(99, fault("c", "1m")).is_none());
        book.remove("a");
        assert!(first.removed.is_cancelled() && changed.removed.is_cancelled());
    }

    #[test]
    fn a_watcher_sees_changes_only() {
        let book = Book::default();
        let mut faults_rx = book.subscribe();
        book.add(fault("a", "1m")).unwrap();
        assert!(faults_rx.has_changed().unwrap());
        assert_eq!(faults_rx.borrow_and_update().len(), 1);
        assert!(book.remove("b").is_none() && !faults_rx.has_changed().unwrap());
        assert_eq!(book.clear().len(), 1);
        assert!(faults_rx.borrow_and_update().is_empty());
    }
}
