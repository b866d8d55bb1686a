/// Stores values under small stable numbers, which are used again after removal.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// The free slot to use next; [`NIL`] when there is none.
    free: u32,
    len: usize,
}

/// No slot.
pub(crate) const NIL: u32 = u32::MAX;

#[derive(Debug)]
enum Slot<T> {
    /// Carries the free slot to use after this one.
    Free(u32),
    Used(T),
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Stores a value and returns its slot.
    ///
    /// # Panics
    /// When there are 2^32 - 1 values already.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free == NIL {
            let slot = u32::try_from(self.slots.len()).unwrap_or(NIL);
            assert!(slot != NIL, "slab is full");
            self.slots.push(Slot::Used(value));
            return slot;
        }
        let slot = self.free;
        match std::mem::replace(&mut self.slots[slot as usize], Slot::Used(value)) {
            Slot::Free(next) => self.free = next,
            Slot::Used(_) => panic!("slot {slot} of the free list is in use"),
        }
        slot
    }

    /// Removes the value of a slot in use.
    ///
    /// # Panics
    /// When the slot is free.
    pub(crate) fn remove(&mut self, slot: u32) -> T {
        match std::mem::replace(&mut self.slots[slot as usize], Slot::Free(self.free)) {
            Slot::Used(value) => {
                self.free = slot;
                self.len -= 1;
                value
            }
            Slot::Free(_) => panic!("slot {slot} is removed twice"),
        }
    }

    /// Returns the value of a slot in use.
    ///
    /// # Panics
    /// When the slot is free.
    pub(crate) fn get(&self, slot: u32) -> &T {
        match &self.slots[slot as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => panic!("slot {slot} is not in use"),
        }
    }

    /// Returns the value of a slot in use, to change it.
    ///
    /// # Panics
    /// When the slot is free.
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut T {
        match &mut self.slots[slot as usize] {
            Slot::Used(value) => value,
            Slot::Free(_) => panic!("slot {slot} is not in use"),
        }
    }

    /// Iterates the slots in use in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..)
            .zip(&self.slots)
            .filter_map(|(n, slot)| match slot {
                Slot::Used(value) => Some((n, value)),
                Slot::Free(_) => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_others_stay() {
        let mut slab = Slab::new();
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), "a");
        let c = slab.insert("c");
        assert_eq!((c, slab.len(), *slab.get(b)), (a, 2, "b"));
        *slab.get_mut(b) = "d";
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(c, &"c"), (b, &"d")]);
    }

    #[test]
    #[should_panic(expected = "removed twice")]
    fn removing_twice_panics() {
        let mut slab = Slab::new();
        let a = slab.insert(());
        slab.remove(a);
        slab.remove(a);
    }
}
