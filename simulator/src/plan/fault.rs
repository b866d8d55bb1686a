//! Kinds of faults, and which of them a run has.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::Random;

/// What a rate of a kind counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// One in so many messages, or disk operations.
    OneIn,
    /// Milliseconds between two, on average.
    EveryMs,
    /// Milliseconds, at most.
    UpToMs,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $unit:ident $rates:expr;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind,)*];

            /// Returns its name, as `--without` takes it.
            pub fn name(self) -> &'static str {
                match self { $(FaultKind::$kind => $name,)* }
            }

            /// Says what its rate counts.
            pub(crate) fn unit(self) -> Unit {
                match self { $(FaultKind::$kind => Unit::$unit,)* }
            }

            fn rates(self) -> &'static [u64] {
                match self { $(FaultKind::$kind => &$rates,)* }
            }
        }
    };
}

kinds! {
    /// A message is lost.
    Loss "loss" OneIn [200, 50, 10, 4];
    /// A message comes twice.
    Duplication "duplication" OneIn [100, 20, 5];
    /// Messages take long, and overtake each other.
    Delay "delay" UpToMs [10, 40, 150, 600];
    /// A message's bytes change on the way.
    Corruption "corruption" OneIn [200, 50, 20];
    /// A member is cut off, the cluster is cut in two, or some links are, for a while.
    Cut "cut" EveryMs [6_000, 2_500, 1_000];
    /// A link carries nothing in one direction, for a while.
    OneWay "one-way" EveryMs [5_000, 2_000];
    /// Two members reach each other only through others, for a while.
    Bridge "bridge" EveryMs [8_000, 3_000];
    /// Clocks run at rates of their own.
    Drift "drift" EveryMs [5_000];
    /// A clock jumps forward; a wall clock jumps anywhere.
    Jump "jump" EveryMs [6_000, 2_000];
    /// A process stands still for a while.
    Pause "pause" EveryMs [5_000, 2_000];
    /// A process is killed, and started again.
    Kill "kill" EveryMs [5_000, 2_000, 1_000];
    /// A machine loses power: any part of what was not synced is gone.
    Power "power" EveryMs [6_000, 2_500, 1_200];
    /// All machines lose power.
    Blackout "blackout" EveryMs [15_000, 6_000];
    /// A machine loses power inside one of the next disk operations, also of a start.
    Torn "torn" EveryMs [4_000, 1_500];
    /// A member is stopped in order, and started again.
    Stop "stop" EveryMs [8_000, 3_000];
    /// A member that starts again has other limits.
    Limits "limits" OneIn [1, 3];
    /// A disk is slow for a while, up to several election timeouts a sync.
    Stall "stall" EveryMs [6_000, 2_500];
    /// A member and its links are slow for a while.
    Slow "slow" EveryMs [8_000, 3_000];
    /// A sync fails.
    SyncFailure "sync-failure" EveryMs [9_000, 4_000];
    /// A write fails, having written a part.
    WriteFailure "write-failure" EveryMs [9_000, 4_000];
    /// A read fails.
    ReadFailure "read-failure" EveryMs [9_000, 4_000];
    /// A disk has no space left, for a while.
    Full "full" EveryMs [12_000, 5_000];
    /// A read returns a wrong bit.
    ReadRot "read-rot" EveryMs [15_000, 6_000];
    /// A write is acknowledged and not done.
    LostWrite "lost-write" EveryMs [15_000, 6_000];
    /// A write lands elsewhere.
    StrayWrite "stray-write" EveryMs [15_000, 6_000];
    /// A bit of what is stored turns round.
    Rot "rot" EveryMs [12_000, 5_000];
    /// A member loses all its data and is replaced.
    Wipe "wipe" EveryMs [20_000, 9_000];
    /// Members are added, promoted and removed.
    Membership "membership" EveryMs [8_000, 3_000, 1_500, 700];
    /// Leadership is moved.
    Transfer "transfer" EveryMs [8_000, 2_000];
    /// A sector can be read no more, until it is written again.
    Latent "latent" EveryMs [12_000, 5_000];
    /// A process is killed inside one of the next disk operations, also of a start.
    Die "die" EveryMs [4_000, 1_500];
    /// Reads return fewer bytes than they could.
    ShortRead "short-read" EveryMs [3_000, 1_000];
    /// A write is done with a wrong bit.
    WriteRot "write-rot" EveryMs [15_000, 6_000];
    /// An operation of a start fails.
    StartFailure "start-failure" EveryMs [8_000, 3_000];
    /// A request of a client is lost, or the answer to it.
    ClientLoss "client-loss" OneIn [100, 30, 8];
    /// Requests of clients take long, and overtake each other.
    ClientDelay "client-delay" UpToMs [50, 500, 3_000];
    /// Connections between clients and a member break.
    ClientCut "client-cut" EveryMs [4_000, 1_500];
    /// The state of a member goes another way than that of the others, as with a bug in what it applies.
    Diverge "diverge" EveryMs [30_000, 10_000];
}

impl FaultKind {
    /// Finds a kind by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The kinds that a run has, with their rates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    rates: BTreeMap<FaultKind, u64>,
}

impl Faults {
    /// Makes a run without faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Draws which kinds a run has: few, or many, so that each is met alone and with every other.
    pub(crate) fn draw(random: &mut Random, is_beyond: bool) -> Self {
        let of_ten = random.choose(&[0, 1, 2, 3, 4, 6]);
        let mut rates = BTreeMap::new();
        for kind in FaultKind::ALL {
            let rate = random.choose(kind.rates());
            let is_on = random.below(10) < of_ten;
            let is_damage = matches!(
                kind,
                FaultKind::Rot | FaultKind::Power | FaultKind::LostWrite
            );
            if is_on || is_beyond && is_damage {
                rates.insert(*kind, rate);
            }
        }
        Self { rates }
    }

    /// Draws more of what damages disks, for a run that goes beyond the atlas.
    pub(crate) fn draw_damage(&mut self, random: &mut Random) {
        for kind in FaultKind::ALL.iter().filter(|kind| kind.is_damage()) {
            let rate = random.choose(kind.rates());
            if random.one_in(2) {
                self.rates.entry(*kind).or_insert(rate);
            }
        }
    }

    /// Adds a kind.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, rate: u64) -> Self {
        self.rates.insert(kind, rate);
        self
    }

    pub(crate) fn remove(&mut self, kinds: &BTreeSet<FaultKind>) {
        self.rates.retain(|kind, _| !kinds.contains(kind));
    }

    /// Returns the rate of a kind; 0 when the run does not have it.
    pub fn rate(&self, kind: FaultKind) -> u64 {
        self.rates.get(&kind).copied().unwrap_or(0)
    }

    /// Lists kinds and rates.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        self.rates.iter().map(|(kind, rate)| (*kind, *rate))
    }
}

impl FaultKind {
    /// Says whether it happens now and then, rather than to messages or starts.
    pub(crate) fn recurs(self) -> bool {
        self.unit() == Unit::EveryMs
    }

    /// Says whether it damages what a disk holds or gives.
    fn is_damage(self) -> bool {
        use FaultKind as K;
        matches!(
            self,
            K::Rot | K::ReadRot | K::WriteRot | K::LostWrite | K::StrayWrite | K::Latent
        )
    }

    /// Says whether a member may be lost by it, so that somebody must replace it.
    pub(crate) fn may_cost_a_member(self) -> bool {
        self.is_damage() || matches!(self, FaultKind::Wipe | FaultKind::Diverge)
    }
}
