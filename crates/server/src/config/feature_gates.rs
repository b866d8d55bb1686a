//! Feature gates: named switches for behaviour of etcd that is not yet, or no longer, on for all.

use std::collections::BTreeMap;
use std::fmt;

use super::go;

/// A feature gate of etcd 3.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// Compares hashes at compaction between members.
    CompactHashCheck,
    /// Renews a lease without waiting for the applied index.
    FastLeaseKeepAlive,
    /// Compares hashes with other members before serving.
    InitialCorruptCheck,
    /// Replicates the remaining time of leases.
    LeaseCheckpoint,
    /// Keeps replicated remaining times on disk.
    LeaseCheckpointPersist,
    /// Lets revocations of leases pass under overload.
    PriorityRequest,
    /// Dials other members from the advertised address.
    SetMemberLocalAddr,
    /// Reports not serving while defragmenting, though everything is served.
    StopGRPCServiceOnDefrag,
    /// Chooses an internal read buffer.
    TxnModeWriteWithSharedBuffer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// What setting a gate does here.
enum GateEffect {
    Built,
    /// Either state behaves alike; says why.
    Indifferent,
    NotBuilt,
}

struct GateRow {
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "a test checks that rows stand in the order of gates"
        )
    )]
    gate: Gate,
    name: &'static str,
    stage: Stage,
    default: bool,
    effect: GateEffect,
}

const fn row(
    gate: Gate,
    name: &'static str,
    stage: Stage,
    default: bool,
    effect: GateEffect,
) -> GateRow {
    GateRow {
        gate,
        name,
        stage,
        default,
        effect,
    }
}

/// Source: etcd v3.7.1 server/features/etcd_features.go. Sorted by name, as
/// [`Gate`] is: a test checks that rows stand in its order.
///
/// Indifferent here: renewals never wait; remaining times are kept whenever they are replicated; there is one buffer.
#[rustfmt::skip]
const ROWS: [GateRow; 9] = [
    row(Gate::CompactHashCheck, "CompactHashCheck", Stage::Alpha, false, GateEffect::Indifferent),
    row(Gate::FastLeaseKeepAlive, "FastLeaseKeepAlive", Stage::Beta, true, GateEffect::Indifferent),
    row(Gate::InitialCorruptCheck, "InitialCorruptCheck", Stage::Alpha, false, GateEffect::Indifferent),
    row(Gate::LeaseCheckpoint, "LeaseCheckpoint", Stage::Alpha, false, GateEffect::Built),
    row(Gate::LeaseCheckpointPersist, "LeaseCheckpointPersist", Stage::Alpha, false, GateEffect::Indifferent),
    row(Gate::PriorityRequest, "PriorityRequest", Stage::Alpha, false, GateEffect::NotBuilt),
    row(Gate::SetMemberLocalAddr, "SetMemberLocalAddr", Stage::Alpha, false, GateEffect::Built),
    row(Gate::StopGRPCServiceOnDefrag, "StopGRPCServiceOnDefrag", Stage::Alpha, false, GateEffect::Built),
    row(Gate::TxnModeWriteWithSharedBuffer, "TxnModeWriteWithSharedBuffer", Stage::Beta, true, GateEffect::Indifferent),
];

const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

/// The states of all gates, and which of them were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    /// Gates set by name or through `AllAlpha` and `AllBeta`, which are in here too.
    set: BTreeMap<&'static str, bool>,
}

impl FeatureGates {
    /// Applies a list such as `A=true,B=false` over what is set already.
    ///
    /// # Errors
    ///
    /// A message in the words of etcd; nothing is changed then.
    pub fn apply(&mut self, text: &str) -> Result<(), String> {
        let mut wanted = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", pair.trim())),
            };
            let state = go::parse_bool(value).map_err(|_| {
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
                )
            })?;
            wanted.insert(
                known_name(name).ok_or_else(|| format!("unrecognized feature gate: {name}"))?,
                state,
            );
        }
        // A gate named in the list wins over AllAlpha and AllBeta of the same list, and of earlier ones.
        self.set.extend(&wanted);
        for (all, stage) in [(ALL_ALPHA, Stage::Alpha), (ALL_BETA, Stage::Beta)] {
            if let Some(&state) = wanted.get(all) {
                for row in ROWS.iter().filter(|row| row.stage == stage) {
                    self.set.entry(row.name).or_insert(state);
                }
            }
        }
        Ok(())
    }

    /// Returns whether a gate is open.
    pub fn is_enabled(&self, gate: Gate) -> bool {
        self.state(&ROWS[gate as usize])
    }

    /// Returns every gate by name with its state, in name order.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        ROWS.iter().map(|row| (row.name, self.state(row)))
    }

    /// Returns every gate by name with its stage as etcd prints it and its state, those for whole stages included.
    pub(crate) fn stages(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> + '_ {
        let all = [(ALL_ALPHA, Stage::Alpha), (ALL_BETA, Stage::Beta)];
        let set = |name| self.set.get(name).copied().unwrap_or(false);
        let rows = ROWS
            .iter()
            .map(|row| (row.name, row.stage.name(), self.state(row)));
        all.into_iter()
            .map(move |(name, stage)| (name, stage.name(), set(name)))
            .chain(rows)
    }

    /// Returns the gates that are set to a state whose effect is not built.
    pub(crate) fn not_built(&self) -> Vec<&'static str> {
        let differs = |row: &&GateRow| {
            matches!(row.effect, GateEffect::NotBuilt) && self.state(row) != row.default
        };
        ROWS.iter().filter(differs).map(|row| row.name).collect()
    }

    /// Checks which gates need which.
    ///
    /// # Errors
    ///
    /// A message in the words of etcd.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.is_enabled(Gate::LeaseCheckpointPersist) && !self.is_enabled(Gate::LeaseCheckpoint)
        {
            return Err(
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn state(&self, row: &GateRow) -> bool {
        self.set.get(row.name).copied().unwrap_or(row.default)
    }

    /// Returns one line a gate for the help text.
    pub(crate) fn help_lines() -> Vec<String> {
        let mut lines: Vec<String> = ROWS
            .iter()
            .map(|row| (row.name, row.stage, row.default))
            .chain([
                (ALL_ALPHA, Stage::Alpha, false),
                (ALL_BETA, Stage::Beta, false),
            ])
            .map(|(name, stage, default)| {
                let stage = stage.name();
                format!("{name}=true|false ({stage} - default={default})")
            })
            .collect();
        lines.sort();
        lines
    }
}

impl fmt::Display for FeatureGates {
    /// Prints what was set, as `A=true,B=false` in name order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, state)) in self.set.iter().enumerate() {
            write!(f, "{}{name}={state}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

fn known_name(name: &str) -> Option<&'static str> {
    ROWS.iter()
        .map(|row| row.name)
        .chain([ALL_ALPHA, ALL_BETA])
        .find(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(text: &str) -> Result<FeatureGates, String> {
        let mut gates = FeatureGates::default();
        gates.apply(text).map(|()| gates)
    }

    #[test]
    fn a_named_gate_wins_over_its_stage() {
        let gates = gates("AllAlpha=true,LeaseCheckpoint=F, AllBeta = 0").unwrap();
        assert!(gates.is_enabled(Gate::CompactHashCheck));
        assert!(!gates.is_enabled(Gate::LeaseCheckpoint));
        assert!(!gates.is_enabled(Gate::FastLeaseKeepAlive));
        assert!(FeatureGates::default().is_enabled(Gate::FastLeaseKeepAlive));
    }

    #[test]
    fn rows_stand_in_the_order_of_gates() {
        assert!(
            ROWS.iter()
                .enumerate()
                .all(|(i, row)| row.gate as usize == i)
        );
    }

    #[test]
    fn bad_lists_are_refused_in_etcds_words() {
        for (text, error) in [
            ("a", "missing bool value for a"),
            ("X=true", "unrecognized feature gate: X"),
            (
                "LeaseCheckpoint=maybe",
                "invalid value of LeaseCheckpoint=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(gates(text).unwrap_err(), error);
        }
        assert_eq!(gates(",,"), Ok(FeatureGates::default()));
    }

    #[test]
    fn printing_and_applying_gives_the_same_gates() {
        let first = gates("AllAlpha=true,LeaseCheckpoint=false,FastLeaseKeepAlive=false").unwrap();
        assert_eq!(gates(&first.to_string()), Ok(first));
    }

    #[test]
    fn persisting_checkpoints_needs_checkpoints() {
        assert!(
            gates("LeaseCheckpointPersist=true")
                .unwrap()
                .check()
                .is_err()
        );
        assert!(
            gates("LeaseCheckpointPersist=true,LeaseCheckpoint=true")
                .unwrap()
                .check()
                .is_ok()
        );
        assert_eq!(
            gates("AllAlpha=true").unwrap().not_built(),
            ["PriorityRequest"]
        );
    }
}
