use super::range_index::RangeIndex;
use super::slab::Slab;
use crate::{EventKind, KeyRange};

/// Watchers by what they watch: one group for each range, with a variant for each way to be told of it.
///
/// A group stays while a watcher of any state refers to it; only synced watchers are members.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Slab<Group>,
    index: RangeIndex,
}

#[derive(Debug)]
struct Group {
    range: KeyRange,
    /// Watchers that refer to the group.
    watchers: usize,
    /// At most eight, by flavour; none goes before the group does.
    variants: Vec<Variant>,
}

/// The watchers of a group that get the same bytes.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) flavour: Flavour,
    pub(super) members: Vec<Member>,
}

/// How a watcher wants its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flavour {
    pub(super) prev_kv: bool,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
}

/// A synced watcher; what is needed to hand it an event lies here, in line with its neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) watch_id: i64,
    pub(super) stream: u32,
    pub(super) watcher: u32,
    pub(super) fragment: bool,
    pub(super) notify: bool,
}

/// Names a variant of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VariantId {
    pub(super) group: u32,
    pub(super) variant: u8,
}

impl Flavour {
    /// Returns whether the filters let an event of this kind pass.
    pub(super) fn wants(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

impl Groups {
    pub(super) fn new(seed: u64) -> Groups {
        Groups {
            groups: Slab::new(),
            index: RangeIndex::new(seed),
        }
    }

    /// Finds or makes the variant for a new watcher, which refers to it until it calls [`Groups::leave`].
    pub(super) fn enter(&mut self, range: &KeyRange, flavour: Flavour) -> VariantId {
        let group = self.index.find(range).unwrap_or_else(|| {
            let group = Group {
                range: range.clone(),
                watchers: 0,
                variants: Vec::new(),
            };
            let group = self.groups.insert(group);
            self.index.insert(range, group);
            group
        });
        let found = &mut self.groups[group];
        found.watchers += 1;
        let position = found
            .variants
            .iter()
            .position(|variant| variant.flavour == flavour)
            .unwrap_or_else(|| {
                found.variants.push(Variant {
                    flavour,
                    members: Vec::new(),
                });
                found.variants.len() - 1
            });
        VariantId {
            group,
            variant: u8::try_from(position).expect("a group has at most eight variants"),
        }
    }

    /// Takes back a reference; the group goes with the last one.
    pub(super) fn leave(&mut self, id: VariantId) {
        let group = &mut self.groups[id.group];
        group.watchers -= 1;
        if group.watchers == 0 {
            let group = self.groups.remove(id.group);
            self.index.remove(&group.range);
        }
    }

    /// Makes a watcher a member and returns its position.
    pub(super) fn join(&mut self, id: VariantId, member: Member) -> u32 {
        let members = &mut self.groups[id.group].variants[usize::from(id.variant)].members;
        members.push(member);
        u32::try_from(members.len() - 1).expect("fewer than 2^32 watchers fit in memory")
    }

    /// Removes the member at a position and returns the watcher that has this position now, if one moved.
    pub(super) fn part(&mut self, id: VariantId, position: u32) -> Option<u32> {
        let members = &mut self.groups[id.group].variants[usize::from(id.variant)].members;
        members.swap_remove(position as usize);
        let moved = members.get(position as usize)?.watcher;
        Some(moved)
    }

    /// Returns the variants of a group.
    pub(super) fn variants(&self, group: u32) -> &[Variant] {
        &self.groups[group].variants
    }

    /// Returns the range of a group.
    pub(super) fn range(&self, group: u32) -> &KeyRange {
        &self.groups[group].range
    }

    /// Returns how a variant wants its events.
    pub(super) fn flavour(&self, id: VariantId) -> Flavour {
        self.groups[id.group].variants[usize::from(id.variant)].flavour
    }

    /// Calls `found` with every group whose range holds the key.
    pub(super) fn each_holding(&self, key: &[u8], found: impl FnMut(u32)) {
        self.index.each_holding(key, found);
    }
}
