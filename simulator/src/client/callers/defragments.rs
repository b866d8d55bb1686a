//! Defragmentations, asked of a member now and then beside what clients do. They draw from numbers of their own.
use quorate_auth::Operation;

use super::{Callers, Checked};
use crate::plan::Plan;
use crate::{Random, World};

/// How often one is asked for, and in which steps.
#[derive(Debug)]
pub(super) struct Defragments {
    random: Random,
    /// One in so many wakes of clients; none when 0.
    one_in: u64,
    step_bytes: u64,
}

impl Defragments {
    pub(super) fn draw(plan: &Plan) -> Self {
        let mut random = Random::of(plan.seed, "defragmentations");
        Self {
            one_in: random.choose(&[0, 0, 20, 60]),
            step_bytes: random.choose(&[1 << 10, 4 << 10, 32 << 10]),
            random,
        }
    }
}

impl Callers {
    /// Asks a member to defragment its database when it is time, if it lets the client.
    pub(super) fn defragment(&mut self, world: &mut World, client: u64) -> Checked {
        let Defragments {
            random,
            one_in,
            step_bytes,
        } = &mut self.defragments;
        if *one_in == 0 || !random.one_in(*one_in) {
            return Ok(());
        }
        let step_bytes = *step_bytes;
        let Some(machine) = random.pick(&world.ready()) else {
            return Ok(());
        };
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        if self.door(world, machine, &identity, &Operation::Maintenance, &[])? {
            world.defragment(machine, step_bytes);
        }
        Ok(())
    }
}
