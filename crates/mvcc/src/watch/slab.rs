use std::ops::{Index, IndexMut};

/// Values at small numbers that stay the same while the value lives and are used again afterwards.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = Some(value);
            return at;
        }
        let at = u32::try_from(self.slots.len()).expect("fewer than 2^32 values fit in memory");
        self.slots.push(Some(value));
        at
    }

    /// # Panics
    /// When nothing is there.
    pub(super) fn remove(&mut self, at: u32) -> T {
        let value = self.slots[at as usize].take().expect("the slot is in use");
        self.free.push(at);
        value
    }

    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.slots.get_mut(at as usize).and_then(Option::as_mut)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Visits the values in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        self.slots[at as usize]
            .as_ref()
            .expect("the slot is in use")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.slots[at as usize]
            .as_mut()
            .expect("the slot is in use")
    }
}
