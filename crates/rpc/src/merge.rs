//! Answers of one watch stream that waited together leave together: a watcher's later events go behind its earlier ones.
//!
//! A stream whose reader keeps up never has two answers of one watcher waiting. One that does not gets fewer and larger
//! messages, which cost it less to read: so the slower it is, the more it is helped.
use hashbrown::HashMap;
use quorate_mvcc::WatchResponse;

/// The most bytes of events that are put into one message by merging.
const MERGED_MAX_BYTES: usize = 128 * 1024;

/// What an answer is, as far as merging goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nothing but events.
    Events {
        /// Of this watcher.
        watch_id: i64,
        /// In so many bytes.
        bytes: usize,
    },
    /// Some of the events of one revision; the rest follows.
    Fragment {
        /// Of this watcher.
        watch_id: i64,
    },
    /// Creation, cancellation or progress: it tells how far what was sent reaches, so nothing moves past it.
    Control,
}

impl Part {
    fn of(response: &WatchResponse) -> Self {
        let is_plain = !response.created && !response.canceled && response.compact_revision == 0;
        match (is_plain, response.fragment, response.events.is_empty()) {
            (true, true, _) => Self::Fragment {
                watch_id: response.watch_id,
            },
            (true, false, false) => Self::Events {
                watch_id: response.watch_id,
                bytes: response.events.bytes().len(),
            },
            _ => Self::Control,
        }
    }
}

/// Answers that become one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Whose fields the message has, but for the header's revision.
    pub(crate) first: usize,
    /// Whose events follow, in order; the last one's revision is the header's.
    pub(crate) later: Vec<usize>,
}

/// Decides which answers become one message.
///
/// Each watcher's events keep their order, and nothing passes a control message. Answers of different watchers may change
/// places, which etcd promises nothing about. A revision that comes in fragments stays as it is.
pub(crate) fn group(parts: impl ExactSizeIterator<Item = Part>) -> Vec<Group> {
    /// The message that a watcher's next events may join.
    enum Open {
        At {
            group: usize,
            bytes: usize,
        },
        /// It is sending fragments; the first answer that is none ends them.
        Fragments,
    }
    let mut groups = Vec::with_capacity(parts.len());
    let mut open: HashMap<i64, Open> = HashMap::new();
    for (at, part) in parts.enumerate() {
        match part {
            Part::Control => open.clear(),
            Part::Fragment { watch_id } => {
                open.insert(watch_id, Open::Fragments);
            }
            Part::Events { watch_id, bytes } => match open.get_mut(&watch_id) {
                Some(Open::At { group, bytes: sum }) if *sum + bytes <= MERGED_MAX_BYTES => {
                    *sum += bytes;
                    let group: &mut Group = &mut groups[*group];
                    group.later.push(at);
                    continue;
                }
                Some(Open::Fragments) => {
                    open.remove(&watch_id);
                }
                _ => {
                    open.insert(
                        watch_id,
                        Open::At {
                            group: groups.len(),
                            bytes,
                        },
                    );
                }
            },
        }
        groups.push(Group {
            first: at,
            later: Vec::new(),
        });
    }
    groups
}

/// Decides which of a stream's answers become one message.
pub(crate) fn group_responses(responses: &[WatchResponse]) -> Vec<Group> {
    // Of watchers that come in the order of their numbers none comes twice.
    if responses.is_sorted_by(|a, b| a.watch_id < b.watch_id) {
        let alone = |first| Group {
            first,
            later: Vec::new(),
        };
        return (0..responses.len()).map(alone).collect();
    }
    group(responses.iter().map(Part::of))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(watch_id: i64) -> Part {
        Part::Events {
            watch_id,
            bytes: 100,
        }
    }

    fn grouped(parts: &[Part]) -> Vec<(usize, Vec<usize>)> {
        group(parts.iter().copied())
            .into_iter()
            .map(|g| (g.first, g.later))
            .collect()
    }

    #[test]
    fn events_of_one_watcher_join_the_earliest_of_them() {
        let parts = [events(1), events(2), events(1), events(2), events(1)];
        assert_eq!(grouped(&parts), [(0, vec![2, 4]), (1, vec![3])]);
    }

    #[test]
    fn nothing_passes_a_control_message() {
        let parts = [events(1), Part::Control, events(1), events(1)];
        assert_eq!(grouped(&parts), [(0, vec![]), (1, vec![]), (2, vec![3])]);
    }

    #[test]
    fn fragments_and_their_end_stay_as_they_are() {
        let fragment = Part::Fragment { watch_id: 1 };
        let parts = [
            events(1),
            fragment,
            fragment,
            events(1),
            events(1),
            events(1),
        ];
        assert_eq!(
            grouped(&parts),
            [
                (0, vec![]),
                (1, vec![]),
                (2, vec![]),
                (3, vec![]),
                (4, vec![5])
            ]
        );
    }

    #[test]
    fn messages_do_not_grow_without_bound() {
        let large = Part::Events {
            watch_id: 1,
            bytes: MERGED_MAX_BYTES / 2,
        };
        assert_eq!(
            grouped(&[large; 5]),
            [(0, vec![1]), (2, vec![3]), (4, vec![])]
        );
    }

    #[test]
    fn every_answer_is_sent_once_and_in_its_watchers_order() {
        let mut state = 1_u64;
        for _ in 0..500 {
            let parts: Vec<Part> = (0..60)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let watch_id = i64::try_from((state >> 33) % 4).unwrap();
                    match (state >> 40) % 10 {
                        0 => Part::Control,
                        1 => Part::Fragment { watch_id },
                        _ => Part::Events {
                            watch_id,
                            bytes: usize::try_from((state >> 20) % 60_000).unwrap(),
                        },
                    }
                })
                .collect();
            let order: Vec<usize> = grouped(&parts)
                .into_iter()
                .flat_map(|(first, later)| std::iter::once(first).chain(later))
                .collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..parts.len()).collect::<Vec<_>>());
            let ids = |part: &Part| match *part {
                Part::Events { watch_id, .. } | Part::Fragment { watch_id } => Some(watch_id),
                Part::Control => None,
            };
            for id in 0..4 {
                // A control message counts for every watcher: nothing of any passes it.
                let own: Vec<usize> = order
                    .iter()
                    .copied()
                    .filter(|&at| ids(&parts[at]).is_none_or(|i| i == id))
                    .collect();
                assert!(own.is_sorted(), "{own:?}");
            }
        }
    }
}
