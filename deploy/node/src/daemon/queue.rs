//! Which images are still to be looked at: pure bookkeeping.
//!
//! An image makes several events under several names, and each start of the daemon lists all of them; what counts is its
//! digest in its namespace. What is remembered is bounded: an image that was forgotten is looked at once more, which
//! costs little.

use std::collections::{HashMap, HashSet, VecDeque};

use coracle_shim::warm::report::Report;

use super::containerd::Image;

/// How many images are remembered.
const REMEMBERED: usize = 8192;
/// How often an image is tried that failed, or whose files were not there.
const ATTEMPTS: u32 = 5;

/// An image's content.
type Key = (String, String);

/// What is known of an image's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits for its turn.
    Queued,
    /// It is looked at now.
    Running,
    /// It needs no more: its code is in the cache, or it has none.
    Done,
    /// It failed; another event may try it again.
    Failed,
    /// Its files are not on the node yet; whatever is unpacked may have been them.
    NotUnpacked,
}

#[derive(Debug)]
struct Known {
    state: State,
    attempts: u32,
}

/// All images that are known.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    known: HashMap<Key, Known>,
    waiting: VecDeque<Image>,
    /// Whose files are not there, by the name to look them up with.
    packed: HashMap<Key, Image>,
    /// The order in which they became known.
    order: VecDeque<Key>,
}

fn key(image: &Image) -> Key {
    (image.namespace.clone(), image.digest.clone())
}

impl Queue {
    /// An image was heard of; says whether it is new work.
    pub(crate) fn offer(&mut self, image: Image) -> bool {
        let key = key(&image);
        match self.known.get_mut(&key) {
            Some(Known { state: State::Queued | State::Running | State::Done, .. }) => {
                return false;
            }
            Some(known) if known.attempts >= ATTEMPTS => return false,
            Some(known) => known.state = State::Queued,
            None => {
                self.make_room();
                self.order.push_back(key.clone());
                self.known.insert(key.clone(), Known { state: State::Queued, attempts: 0 });
            }
        }
        self.packed.remove(&key);
        self.waiting.push_back(image);
        true
    }

    /// The next one to look at.
    pub(crate) fn next(&mut self) -> Option<Image> {
        let image = self.waiting.pop_front()?;
        if let Some(known) = self.known.get_mut(&key(&image)) {
            known.state = State::Running;
            known.attempts += 1;
        }
        Some(image)
    }

    /// What came of it.
    pub(crate) fn done(&mut self, image: &Image, report: &Report) {
        let key = key(image);
        let state = match report {
            Report::Compiled { .. } | Report::Cached { .. } | Report::Nothing { .. } => State::Done,
            Report::NotUnpacked { .. } => State::NotUnpacked,
            Report::Gone { .. } | Report::Failed { .. } => State::Failed,
        };
        let Some(known) = self.known.get_mut(&key) else { return };
        known.state = state;
        if state == State::NotUnpacked && known.attempts < ATTEMPTS {
            self.packed.insert(key, image.clone());
        }
    }

    /// Something was unpacked: what waited for that is tried again. Says whether there is any.
    pub(crate) fn unpacked(&mut self) -> bool {
        let images: Vec<Image> = self.packed.drain().map(|(_, image)| image).collect();
        // All of them, not only up to the first.
        images.into_iter().filter(|image| self.offer(image.clone())).count() > 0
    }

    /// Forgets what is neither in this list nor at work.
    pub(crate) fn keep_only(&mut self, images: &[Image]) {
        let there: HashSet<Key> = images.iter().map(key).collect();
        self.known.retain(|key, known| known.state == State::Running || there.contains(key));
        self.waiting.retain(|image| there.contains(&key(image)));
        self.packed.retain(|key, _| there.contains(key));
        self.order.retain(|key| self.known.contains_key(key));
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets the eldest that needs nothing any more. Where all do, none: their number is that of the node's images.
    fn make_room(&mut self) {
        if self.known.len() < REMEMBERED {
            return;
        }
        let is_idle = |key: &Key| {
            !matches!(
                self.known.get(key),
                Some(Known { state: State::Queued | State::Running, .. })
            )
        };
        if let Some(at) = self.order.iter().position(is_idle)
            && let Some(key) = self.order.remove(at)
        {
            self.known.remove(&key);
            self.packed.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, digest: &str) -> Image {
        Image { namespace: "n".into(), name: name.into(), digest: digest.into() }
    }

    fn why() -> String {
        String::new()
    }

    #[test]
    fn one_image_is_looked_at_once_under_all_its_names() {
        let mut queue = Queue::default();
        assert!(queue.offer(image("a:1", "d")));
        assert!(!queue.offer(image("a:1", "d")));
        assert!(!queue.offer(image("a@d", "d")));
        let first = queue.next().unwrap();
        assert_eq!(queue.next(), None);
        assert!(!queue.offer(first.clone()), "it is at work");
        queue.done(&first, &Report::Nothing { why: why() });
        assert!(!queue.offer(first));
        assert!(queue.offer(image("a:1", "e")), "the name has other content");
        let elsewhere = Image { namespace: "m".into(), ..image("a:1", "d") };
        assert!(queue.offer(elsewhere));
    }

    #[test]
    fn what_is_not_unpacked_waits_for_that() {
        let mut queue = Queue::default();
        queue.offer(image("a:1", "d"));
        for attempt in 1..=ATTEMPTS {
            let image = queue.next().unwrap();
            queue.done(&image, &Report::NotUnpacked { why: why() });
            assert_eq!(queue.next(), None);
            assert_eq!(queue.unpacked(), attempt < ATTEMPTS, "attempt {attempt}");
        }
        assert!(!queue.offer(image("a:1", "d")), "enough");
    }

    #[test]
    fn what_failed_is_tried_when_it_is_heard_of_again() {
        let mut queue = Queue::default();
        for _ in 0..ATTEMPTS {
            assert!(queue.offer(image("a:1", "d")));
            let image = queue.next().unwrap();
            queue.done(&image, &Report::Failed { why: why() });
            assert!(!queue.unpacked());
        }
        assert!(!queue.offer(image("a:1", "d")));
    }

    #[test]
    fn memory_is_bounded_and_what_is_gone_is_forgotten() {
        let mut queue = Queue::default();
        for number in 0..REMEMBERED + 100 {
            assert!(queue.offer(image("a", &number.to_string())));
            let image = queue.next().unwrap();
            queue.done(&image, &Report::Cached { bytes: 1 });
        }
        assert_eq!((queue.known.len(), queue.order.len()), (REMEMBERED, REMEMBERED));
        assert!(queue.offer(image("a", "0")), "the eldest was forgotten");
        let left = [image("a", "0"), image("a", "200")];
        queue.keep_only(&left);
        assert_eq!((queue.known.len(), queue.order.len(), queue.len()), (2, 2, 1));
        queue.keep_only(&[]);
        assert_eq!((queue.known.len(), queue.len()), (0, 0));
    }
}
