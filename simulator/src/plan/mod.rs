//! From a seed to everything that is fixed before a run begins.
use std::collections::{BTreeMap, BTreeSet};

use crate::Random;

mod fault;
mod limits;

pub use fault::{FaultKind, Faults};
pub use limits::Limits;

/// What narrows a plan, to find the smallest run that still fails. What is left out changes no other draw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// Kinds of faults that do not happen.
    pub without: BTreeSet<FaultKind>,
    /// Faults of all kinds that happen at most.
    pub faults: Option<u64>,
    /// Operations that clients begin at most.
    pub operations: Option<u64>,
    /// Members that found the cluster.
    pub members: Option<u64>,
    /// Length of the first phase, in simulated milliseconds.
    pub length_ms: Option<u64>,
}

/// Everything that is fixed before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Members that found the cluster; their ids are 1, 2 and so on.
    pub members: u64,
    /// Limits of the first member; others draw their own around them.
    pub limits: Limits,
    /// Length of the first phase, in simulated milliseconds.
    pub length_ms: u64,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// Faults that happen at most.
    pub faults_max: u64,
    /// Clients.
    pub clients: u64,
    /// Milliseconds that a client waits between two operations, on average.
    pub think_ms: u64,
    /// Operations that clients begin at most.
    pub operations: u64,
    /// Whether damage goes beyond what a minority may suffer: then nobody need serve, and nobody may lie.
    pub is_beyond: bool,
}

impl Plan {
    /// Draws the plan of a seed and narrows it.
    pub fn draw(seed: u64, narrow: &Narrow) -> Self {
        let mut random = Random::of(seed, "plan");
        let members = random.choose(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 7]);
        let length_ms = random.choose(&[3_000, 5_000, 8_000, 10_000, 15_000, 30_000]);
        let clients = random.between(1, 6);
        let think_ms = random.choose(&[20, 60, 150, 400]);
        let is_beyond = random.one_in(12);
        let mut limits = Limits::draw(&mut Random::of(seed, "limits"));
        limits.draw_quota(&mut Random::of(seed, "quota"));
        limits.draw_spread(&mut Random::of(seed, "spread"));
        limits.downgrades = Random::of(seed, "downgrades").one_in(2);
        let mut faults = Faults::draw(&mut Random::of(seed, "faults"), is_beyond);
        if is_beyond {
            faults.draw_damage(&mut Random::of(seed, "beyond"));
        }
        faults.remove(&narrow.without);
        Self {
            seed,
            members: narrow.members.unwrap_or(members).max(1),
            limits,
            length_ms: narrow.length_ms.unwrap_or(length_ms),
            faults,
            faults_max: narrow.faults.unwrap_or(u64::MAX),
            clients,
            think_ms,
            operations: narrow.operations.unwrap_or(u64::MAX),
            is_beyond,
        }
    }

    /// Makes a plan in which nothing goes wrong, for scenarios that say themselves what happens.
    pub fn quiet(seed: u64, members: u64) -> Self {
        Self {
            seed,
            members,
            limits: Limits::default(),
            length_ms: 0,
            faults: Faults::none(),
            faults_max: u64::MAX,
            clients: 0,
            think_ms: 100,
            operations: u64::MAX,
            is_beyond: false,
        }
    }

    /// Describes it in a few lines.
    pub fn describe(&self) -> String {
        let rates: BTreeMap<_, _> = self.faults.iter().collect();
        let kinds: Vec<String> = rates.iter().map(|(k, r)| format!("{k}={r}")).collect();
        format!(
            "{} members, {} clients every {} ms, {} s{}\n{:?}\nfaults: {}",
            self.members,
            self.clients,
            self.think_ms,
            self.length_ms / 1_000,
            if self.is_beyond {
                ", beyond the atlas"
            } else {
                ""
            },
            self.limits,
            kinds.join(" "),
        )
    }
}
