//! Lies that the checks must see through: only a run that can fail says something when it does not.
use std::fmt;

use quorate_core::{Applied, Outcome};
use quorate_disk::{Fault, OperationKind};

use crate::check::Violation;
use crate::client::{Callers, Puts, Workload};
use crate::plan::{FaultKind, Faults, Narrow, Plan};
use crate::run::EVERYTHING_FROM;
use crate::{Note, Report, Trace, World, run};

/// What is made up in a run in which nothing else goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// An acknowledged put is said to have another revision than it has.
    Revision,
    /// What a watcher is due is taken away before it comes.
    Event,
    /// Disks lose writes, and nobody is told that they do.
    Disk,
    /// A damaged member gives something else than it holds.
    Read,
    /// An answer does not come.
    Answer,
    /// Nobody is sound, and who runs says nothing.
    Hang,
    /// Who holds another state than the others is not stopped.
    Divergence,
    /// A stream of watchers is left open at the end.
    Stream,
}

/// Notes of its kind that are passed on before the lie.
const TRUTHS: u64 = 12;
/// Writes lost of a million.
const LOST_WRITES: u32 = 20_000;
/// Milliseconds between two members whose state goes another way.
const DIVERGES_EVERY_MS: u64 = 1_500;
/// Length of the first phase, in milliseconds.
const LENGTH_MS: u64 = 5_000;

impl Lie {
    /// Every lie.
    pub const ALL: &[Lie] = &[
        Lie::Revision,
        Lie::Event,
        Lie::Disk,
        Lie::Read,
        Lie::Answer,
        Lie::Hang,
        Lie::Divergence,
        Lie::Stream,
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Lie::Revision => "a false revision",
            Lie::Event => "a swallowed event",
            Lie::Disk => "lost writes",
            Lie::Read => "a false read of a damaged member",
            Lie::Answer => "a lost answer",
            Lie::Hang => "silence beyond the atlas",
            Lie::Divergence => "a member that differs and goes on",
            Lie::Stream => "a stream left open",
        }
    }

    /// Returns the seed to begin with: that of clients who can be lied to.
    pub fn first_seed(self) -> u64 {
        match self {
            Lie::Revision | Lie::Event | Lie::Read | Lie::Answer => EVERYTHING_FROM + 1,
            Lie::Disk | Lie::Hang | Lie::Divergence | Lie::Stream => 1,
        }
    }

    /// Returns the check that must find it; `None` where several may.
    pub fn check(self) -> Option<&'static str> {
        match self {
            Lie::Revision => Some("answers are the model's"),
            Lie::Event => Some("watch promises"),
            Lie::Disk => None,
            Lie::Read => Some("reads are the model's"),
            Lie::Answer => Some("requests are answered"),
            Lie::Hang => Some("loud stop"),
            Lie::Divergence => Some("members that differ stop"),
            Lie::Stream => Some("resources return to their floor"),
        }
    }
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Runs a short seed in which nothing goes wrong but this lie, if any.
pub fn run_lie(seed: u64, lie: Option<Lie>, narrow: &Narrow) -> Report {
    let narrow = Narrow {
        length_ms: Some(narrow.length_ms.unwrap_or(LENGTH_MS)),
        ..narrow.clone()
    };
    let mut plan = Plan::draw(seed, &narrow);
    plan.faults = Faults::none();
    plan.is_beyond = lie == Some(Lie::Hang);
    if lie == Some(Lie::Divergence) {
        plan.faults = plan.faults.with(FaultKind::Diverge, DIVERGES_EVERY_MS);
    }
    let inner: Box<dyn Workload> = if seed < EVERYTHING_FROM {
        Box::new(Puts::new(&plan))
    } else {
        Box::new(Callers::new(&plan))
    };
    let mut liar = Liar {
        inner,
        lie,
        truths: TRUTHS,
    };
    run(plan, &mut liar, Trace::Off)
}

/// Clients between whom and the cluster somebody lies, once.
struct Liar {
    inner: Box<dyn Workload>,
    lie: Option<Lie>,
    truths: u64,
}

impl Liar {
    /// Makes of a note what clients are told.
    fn twist(&mut self, world: &mut World, note: &mut Note) {
        let Some(lie) = self.lie.filter(|_| self.truths > 0) else {
            return;
        };
        let is_time = self.truths == 1;
        let fits = match (lie, note) {
            (Lie::Revision, Note::Answered { outcome, .. }) => {
                let put = match outcome {
                    Outcome::Applied(Applied::Put(put)) => Some(put),
                    _ => None,
                };
                put.map(|put| put.revision += i64::from(is_time)).is_some()
            }
            (Lie::Event, Note::StreamsReady { machine, streams }) => {
                if is_time && let Some(hub) = world.hub(*machine) {
                    streams
                        .iter()
                        .for_each(|id| drop(hub.take(*id, usize::MAX)));
                }
                true
            }
            (Lie::Disk, _) => {
                for disk in world.machines().map(crate::Machine::disk) {
                    disk.set_rate(OperationKind::Write, Fault::LoseWrite, LOST_WRITES);
                }
                true
            }
            _ => false,
        };
        self.truths -= u64::from(fits);
    }
}

impl Workload for Liar {
    fn start(&mut self, world: &mut World) {
        world.lie = self.lie;
        if matches!(self.lie, Some(Lie::Read | Lie::Hang)) {
            world.call_all_damaged();
        }
        self.inner.start(world);
    }

    fn note(&mut self, world: &mut World, mut note: Note) -> Result<(), Violation> {
        self.twist(world, &mut note);
        self.inner.note(world, note)
    }

    fn stop(&mut self, world: &mut World) {
        let (first, now_ms) = (world.up().first().copied(), world.now_ms());
        if self.lie == Some(Lie::Stream)
            && let Some(hub) = first.and_then(|machine| world.hub(machine))
        {
            hub.open_stream(now_ms);
        }
        self.inner.stop(world);
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }

    fn check(&mut self, world: &mut World) -> Result<(), Violation> {
        self.inner.check(world)
    }
}
