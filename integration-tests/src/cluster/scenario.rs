//! What happens to clusters, as data.

use super::disk::Stall;
use super::member::DiskKind;
use super::proxy::{Place, Rules};

/// To whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The member that leads; any, when none does.
    Leader,
    /// A running member that does not.
    Follower,
    /// Any running member.
    Any,
    /// Whoever the last step with a choice chose.
    Same,
    /// The member at this place.
    At(Place),
    /// A member of the first program, or of the last.
    Runs(Program),
}

/// One of the programs of a mixed cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The first.
    First,
    /// The last.
    Last,
}

/// Which wires of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wires {
    /// All, both directions.
    All,
    /// All, what it sends.
    Out,
    /// All, what is sent to it.
    In,
    /// Those between it and one other, both directions.
    One,
    /// Those to one other, what it sends.
    OneOut,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// SIGKILL.
    Kill(Who),
    /// SIGKILL to every member at once.
    KillAll,
    /// SIGTERM, and waiting for the end.
    Stop(Who),
    /// Starts a member that does not run, and waits until it serves.
    Start(Who),
    /// Starts a member that does not run, without waiting.
    BeginStart(Who),
    /// Starts every member that does not run, and waits until they serve.
    StartAll,
    /// SIGSTOP.
    Pause(Who),
    /// SIGCONT.
    Resume(Who),
    /// Rules for wires.
    Set(Who, Wires, Rules),
    /// Drops the connections of a member.
    Reset(Who),
    /// All wires in order again.
    Heal,
    /// No space left on the disk.
    FillDisk(Who),
    /// Space again.
    FreeDisk(Who),
    /// Holds up syncs.
    Stall(Who, Stall),
    /// Removes a member and puts a new one in its place, of the same program.
    Replace(Who),
    /// The same with another program.
    ReplaceBy(Who, Program),
    /// Kills a member, loses its data, and puts a new one in its place.
    Lose(Who),
    /// Adds a member without a vote in the spare place.
    AddLearner,
    /// Gives it a vote.
    Promote,
    /// Removes the member in the place that was spare.
    RemoveAdded,
    /// Hands the leadership to a member.
    Lead(Who),
    /// Has a member make its files smaller, without waiting.
    Defragment(Who),
    /// Has a member send its whole state to a client, without waiting.
    Backup(Who),
    /// Waits, milliseconds from and to.
    Wait(u64, u64),
    /// Waits until so many more writes are acknowledged.
    Writes(u64),
}

/// What happens to a cluster over and over, while it is under load.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The rows of the fault catalogue that it is about.
    pub rows: &'static str,
    /// Arguments of the members.
    pub args: &'static [&'static str],
    /// What their data lies on.
    pub disk: DiskKind,
    /// Members may end by themselves.
    pub may_end: bool,
    /// It is about two programs, and begins with members of the first only.
    pub is_migration: bool,
    /// It asks for more than etcd promises: only for members that are all Quorate's.
    pub is_ours: bool,
    /// What some member must have logged at the end.
    pub logged: Option<&'static str>,
    /// One round.
    pub steps: &'static [Step],
}

const PLAIN: Scenario = Scenario {
    name: "",
    rows: "",
    args: &[],
    disk: DiskKind::Plain,
    may_end: false,
    is_migration: false,
    is_ours: false,
    logged: None,
    steps: &[],
};

const HELD: Stall = Stall {
    hold: true,
    delay_ms: 0,
    error: 0,
};
const FREE: Stall = Stall {
    hold: false,
    delay_ms: 0,
    error: 0,
};
const SLOW: Stall = Stall {
    hold: false,
    delay_ms: 120,
    error: 0,
};

use Step::{
    AddLearner, Backup, BeginStart, Defragment, FillDisk, FreeDisk, Heal, Kill, KillAll, Lead,
    Lose, Pause, Promote, RemoveAdded, Replace, ReplaceBy, Reset, Resume, Set, Start, StartAll,
    Stop, Wait, Writes,
};
use Who::{Any, At, Follower, Leader, Runs, Same};

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        rows: "2.22, 2.23, 2.24, 2.27, 2.28: what nobody disturbs but compaction",
        steps: &[Writes(200), Wait(200, 400)],
        ..PLAIN
    },
    Scenario {
        name: "kill",
        rows: "C1, C6, 2.1, 2.2, 2.3, 2.25, 2.26",
        steps: &[
            Kill(Any),
            Wait(0, 1_500),
            Start(Same),
            Writes(100),
            Wait(0, 500),
        ],
        ..PLAIN
    },
    Scenario {
        name: "kill-leader",
        rows: "C1, N7, 2.29, 2.30, 2.32: the leader killed every few seconds",
        steps: &[Kill(Leader), Writes(20), Start(Same), Wait(500, 2_000)],
        ..PLAIN
    },
    Scenario {
        name: "kill-all",
        rows: "C4, C5",
        steps: &[
            Writes(100),
            KillAll,
            StartAll,
            Writes(50),
            Wait(0, 1_000),
            KillAll,
            BeginStart(At(0)),
            Wait(0, 300),
            Kill(At(0)),
            StartAll,
        ],
        ..PLAIN
    },
    Scenario {
        name: "pause",
        rows: "T3, 2.29, 2.31",
        steps: &[
            Pause(Leader),
            Wait(100, 4_000),
            Resume(Same),
            Wait(0, 300),
            Pause(Follower),
            Wait(100, 2_500),
            Resume(Same),
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "rolling-restart",
        rows: "O1, N7: SIGTERM to one after the other",
        steps: &[
            Stop(At(0)),
            Start(At(0)),
            Writes(30),
            Stop(At(1)),
            Start(At(1)),
            Writes(30),
            Stop(Leader),
            Start(Same),
            Writes(30),
        ],
        ..PLAIN
    },
    Scenario {
        name: "cut-one-link",
        rows: "N2: two members do not reach each other, the third reaches both",
        steps: &[
            Set(Leader, Wires::One, Rules::CUT),
            Wait(1_000, 5_000),
            Heal,
            Set(Follower, Wires::One, Rules::CUT),
            Wait(500, 2_000),
            Heal,
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "isolate",
        rows: "N1: the leader alone, then a follower alone",
        steps: &[
            Set(Leader, Wires::All, Rules::CUT),
            Wait(1_500, 5_000),
            Heal,
            Writes(50),
            Set(Follower, Wires::All, Rules::CUT),
            Wait(500, 3_000),
            Heal,
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "one-way",
        rows: "N2, N8: bytes arrive in one direction only",
        steps: &[
            Set(Leader, Wires::Out, Rules::CUT),
            Wait(1_500, 5_000),
            Heal,
            Writes(20),
            Set(Leader, Wires::In, Rules::CUT),
            Wait(1_500, 5_000),
            Heal,
            Writes(20),
            Set(Follower, Wires::OneOut, Rules::CUT),
            Wait(500, 3_000),
            Heal,
            Writes(20),
        ],
        ..PLAIN
    },
    Scenario {
        name: "swallow",
        rows: "N3, N8: bytes vanish, connections seem to live",
        steps: &[
            Set(Leader, Wires::Out, Rules::SWALLOW),
            Wait(500, 4_000),
            Heal,
            Writes(20),
            Set(Any, Wires::All, Rules::SWALLOW),
            Wait(500, 4_000),
            Heal,
            Writes(20),
        ],
        ..PLAIN
    },
    Scenario {
        name: "flip",
        rows: "N4: bits change on the way; what is behind a checksum is refused, and nothing that is wrong becomes a value",
        is_ours: true,
        steps: &[
            Set(Leader, Wires::All, Rules::flipping(20)),
            Wait(500, 2_000),
            Reset(Any),
            Writes(20),
            Set(Any, Wires::All, Rules::flipping(100)),
            Wait(500, 1_000),
            Reset(Same),
            Wait(500, 1_000),
            Reset(Same),
            Wait(500, 1_000),
            Heal,
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "flip-snapshot",
        rows: "N4, D4, N6: bits change in snapshots on their way",
        args: SMALL_LOG,
        is_ours: true,
        logged: Some("applied snapshot"),
        steps: &[
            Kill(Follower),
            Writes(300),
            Set(Same, Wires::All, Rules::flipping(50)),
            BeginStart(Same),
            Wait(1_000, 3_000),
            Heal,
            Start(Same),
            Writes(30),
        ],
        ..PLAIN
    },
    Scenario {
        name: "delay",
        rows: "N3: up to 700 ms, and more than an election takes",
        steps: &[
            Set(Any, Wires::All, Rules::slow(20, 80)),
            Wait(1_000, 3_000),
            Set(Leader, Wires::All, Rules::slow(200, 500)),
            Wait(2_000, 4_000),
            Heal,
            Set(Leader, Wires::Out, Rules::slow(1_500, 1_000)),
            Wait(2_000, 4_000),
            Heal,
            Writes(20),
        ],
        ..PLAIN
    },
    Scenario {
        name: "loss",
        rows: "N3: up to 30 % of packets lost",
        steps: &[
            Set(Leader, Wires::All, Rules::lossy(20)),
            Wait(2_000, 4_000),
            Set(Any, Wires::All, Rules::lossy(300)),
            Wait(2_000, 4_000),
            Heal,
            Writes(20),
        ],
        ..PLAIN
    },
    Scenario {
        name: "reset",
        rows: "N8: connections dropped again and again",
        steps: &[
            Reset(Leader),
            Wait(0, 150),
            Reset(Any),
            Wait(0, 50),
            Reset(Any),
            Wait(50, 400),
        ],
        ..PLAIN
    },
    Scenario {
        name: "narrow",
        rows: "N3: 1 Mbit/s and less",
        steps: &[
            Set(Leader, Wires::All, Rules::narrow(120_000)),
            Wait(2_000, 4_000),
            Set(Follower, Wires::All, Rules::narrow(20_000)),
            Wait(2_000, 4_000),
            Heal,
            Writes(20),
        ],
        ..PLAIN
    },
    Scenario {
        name: "disk-full",
        rows: "D7, 2.8",
        disk: DiskKind::Small,
        may_end: true,
        steps: &[
            FillDisk(Follower),
            Wait(2_000, 5_000),
            FreeDisk(Same),
            StartAll,
            Writes(50),
            FillDisk(Leader),
            Wait(2_000, 5_000),
            FreeDisk(Same),
            StartAll,
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "slow-disk",
        rows: "D11, D12, 2.31: syncs that take long, and syncs that do not end",
        disk: DiskKind::Slow,
        steps: &[
            Step::Stall(Follower, SLOW),
            Wait(1_000, 3_000),
            Step::Stall(Same, FREE),
            Step::Stall(Leader, HELD),
            Wait(800, 4_000),
            Step::Stall(Same, FREE),
            Writes(20),
            Step::Stall(Follower, HELD),
            Wait(500, 3_000),
            Step::Stall(Same, FREE),
            Step::Stall(Leader, SLOW),
            Wait(1_000, 3_000),
            Step::Stall(Same, FREE),
            Writes(20),
        ],
        ..PLAIN
    },
    Scenario {
        name: "disk-error",
        rows: "D8: a sync fails",
        disk: DiskKind::Slow,
        may_end: true,
        steps: &[
            Step::Stall(
                Any,
                Stall {
                    hold: false,
                    delay_ms: 0,
                    error: 5,
                },
            ),
            Wait(500, 1_500),
            Step::Stall(Same, FREE),
            Kill(Same),
            Start(Same),
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "replace",
        rows: "N5, N9, 2.37: members removed and added under load",
        steps: &[Replace(Follower), Writes(100), Replace(Leader), Writes(100)],
        ..PLAIN
    },
    Scenario {
        name: "lose",
        rows: "D6, N5: a follower loses its data and comes as a new member",
        steps: &[Lose(Follower), Writes(100)],
        ..PLAIN
    },
    Scenario {
        name: "learner",
        rows: "N5, 2.36, 2.37: a learner is added, promoted, removed",
        steps: &[
            AddLearner,
            Writes(50),
            Promote,
            Writes(50),
            Kill(Same),
            Start(Same),
            Kill(Leader),
            Writes(20),
            Start(Same),
            RemoveAdded,
            Writes(50),
        ],
        ..PLAIN
    },
    Scenario {
        name: "snapshot",
        rows: "N6, C7, 2.9, 2.10, 2.18, 2.19, 2.20, 2.21: a member so far behind that it needs a snapshot",
        args: SMALL_LOG,
        logged: Some("applied snapshot"),
        steps: &[
            Kill(Follower),
            Writes(300),
            Start(Same),
            Writes(50),
            Set(Follower, Wires::All, Rules::CUT),
            Writes(300),
            Heal,
            Writes(50),
            Kill(Leader),
            Writes(300),
            Start(Same),
        ],
        ..PLAIN
    },
    Scenario {
        name: "snapshot-storm",
        rows: "C7, 2.6, 2.9, 2.10, 2.12, 2.13, 2.18: kills, cuts, defragmentation and backups while snapshots are under way",
        args: SMALL_LOG,
        steps: &[
            Kill(Follower),
            Writes(200),
            Backup(Leader),
            Defragment(Same),
            BeginStart(At(0)),
            BeginStart(At(1)),
            BeginStart(At(2)),
            Wait(0, 400),
            Reset(Any),
            Defragment(Any),
            Wait(0, 200),
            StartAll,
            Writes(30),
            Kill(Follower),
            Writes(200),
            BeginStart(Same),
            Wait(0, 400),
            Kill(Same),
            Start(Same),
            Defragment(Same),
            Backup(Same),
            Writes(30),
            Pause(Follower),
            Writes(200),
            Resume(Same),
            Wait(0, 300),
            Kill(Same),
            Start(Same),
        ],
        ..PLAIN
    },
    Scenario {
        name: "transfer",
        rows: "N7: the leadership goes round",
        steps: &[Lead(Follower), Wait(300, 1_000), Writes(10)],
        ..PLAIN
    },
    Scenario {
        name: "change-in-storm",
        rows: "C7, N5: members change while wires are cut and members die",
        steps: &[
            Set(Any, Wires::All, Rules::lossy(50)),
            Lose(Follower),
            Reset(Any),
            Heal,
            Kill(Any),
            Wait(0, 1_000),
            Start(Same),
            Lead(Follower),
            Replace(Leader),
            Writes(30),
        ],
        ..PLAIN
    },
    Scenario {
        name: "migrate",
        rows: "O1: every member of the first program replaced by one of the last, and back",
        args: SMALL_LOG,
        is_migration: true,
        steps: &[
            ReplaceBy(At(0), Program::Last),
            Lead(Runs(Program::First)),
            Writes(100),
            Lead(Runs(Program::Last)),
            Writes(100),
            ReplaceBy(At(1), Program::Last),
            Writes(100),
            Lead(Runs(Program::First)),
            Writes(100),
            ReplaceBy(At(2), Program::Last),
            Kill(Leader),
            Writes(100),
            Start(Same),
            ReplaceBy(At(2), Program::First),
            Lead(Runs(Program::Last)),
            Writes(100),
            ReplaceBy(At(0), Program::First),
            Lead(Runs(Program::First)),
            Writes(100),
            ReplaceBy(At(1), Program::First),
            Writes(100),
        ],
        ..PLAIN
    },
    Scenario {
        name: "sides",
        rows: "O1, N6: the leader now of one program, now of the other, members of each behind and caught up by snapshot",
        args: SMALL_LOG,
        logged: Some("applied snapshot"),
        steps: &[
            Lead(Runs(Program::First)),
            Kill(Runs(Program::Last)),
            Writes(300),
            Start(Same),
            Writes(30),
            Lead(Runs(Program::Last)),
            Kill(Runs(Program::First)),
            Writes(300),
            Start(Same),
            Writes(30),
        ],
        ..PLAIN
    },
    Scenario {
        name: "long-pause",
        rows: "T3: pauses that outlast elections, leases and requests, of the leader and of a follower",
        steps: &[
            Pause(Leader),
            Wait(6_000, 9_000),
            Resume(Same),
            Wait(0, 200),
            Pause(Follower),
            Wait(6_000, 9_000),
            Resume(Same),
            Writes(50),
        ],
        ..PLAIN
    },
];

/// So few entries are kept that whoever misses some needs a snapshot.
const SMALL_LOG: &[&str] = &["--snapshot-count=100", "--snapshot-catchup-entries=50"];

impl Scenario {
    /// The scenario of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (number, scenario) in SCENARIOS.iter().enumerate() {
            let later = &SCENARIOS[number + 1..];
            assert!(later.iter().all(|other| other.name != scenario.name));
            assert_eq!(Scenario::named(scenario.name).unwrap().rows, scenario.rows);
        }
        assert!(Scenario::named("no such thing").is_none());
    }

    #[test]
    fn what_is_broken_is_mended_in_the_same_round() {
        for scenario in SCENARIOS {
            let count =
                |is: fn(&Step) -> bool| scenario.steps.iter().filter(|step| is(step)).count();
            let pauses = count(|step| matches!(step, Pause(_)));
            assert_eq!(
                pauses,
                count(|step| matches!(step, Resume(_))),
                "{}",
                scenario.name
            );
            let last_set = scenario
                .steps
                .iter()
                .rposition(|step| matches!(step, Set(..)));
            let last_heal = scenario.steps.iter().rposition(|step| *step == Heal);
            assert!(last_set <= last_heal, "{}", scenario.name);
        }
    }
}
