//! One cluster member as a deterministic state machine.
