//! Backups: a member's image is read piece by piece, each an event beside all others, and restored. They draw from numbers of
//! their own.
use std::collections::BTreeMap;
use std::io::Read as _;

use quorate_auth::Operation;
use quorate_core::{ImageError, ImageHash, ImageMeasure, ImageStream};

use super::{BACKUPS, Callers, Checked};
use crate::check::{Violation, backup_holds};
use crate::plan::Plan;
use crate::{Random, World};

/// How often one is asked for, in which pieces, and what is under way.
#[derive(Debug)]
pub(super) struct Backups {
    random: Random,
    clients: u64,
    /// One in so many looks at what takes long; none when 0.
    one_in: u64,
    piece_bytes: usize,
    /// Milliseconds between two pieces at most.
    pause_ms: u64,
    /// By machine: one at a time each.
    under_way: BTreeMap<u64, Backup>,
}

/// One that is being read.
#[derive(Debug)]
struct Backup {
    /// The life of the member that gives it.
    life: u64,
    /// The stores that it is a state of.
    generation: u64,
    /// The newest entry in it.
    place: u64,
    part: Part,
    beside: Beside,
}

/// What the member did while it was read.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    compacts: bool,
    defragments: bool,
    installs: bool,
}

/// How far it was read.
#[derive(Debug)]
enum Part {
    /// The first time, to know its size.
    Measured(Box<ImageMeasure>),
    /// For the client, which has this much of it.
    Read(Box<ImageStream>, Vec<u8>),
}

impl Backups {
    pub(super) fn draw(plan: &Plan) -> Self {
        let mut random = Random::of(plan.seed, "backups");
        let piece_bytes = random.choose(&[2 << 10, 8 << 10, 32 << 10]);
        Self {
            one_in: random.choose(&[0, 0, 10, 40]),
            piece_bytes: usize::try_from(piece_bytes).unwrap_or(usize::MAX),
            pause_ms: random.choose(&[1, 10, 60]),
            clients: plan.clients,
            under_way: BTreeMap::new(),
            random,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

impl Callers {
    /// Asks a member for a backup when it is time, if it lets the client.
    pub(super) fn begin_backup(&mut self, world: &mut World) -> Checked {
        let Backups {
            random,
            clients,
            one_in,
            under_way,
            ..
        } = &mut self.backups;
        if *one_in == 0 {
            return Ok(());
        }
        let mut among = world.ready();
        if random.one_in(*one_in) {
            // Any.
        } else if random.one_in(2) {
            among.retain(|number| world.awaits_snapshot(*number));
        } else {
            return Ok(());
        }
        let client = random.below(*clients);
        let Some(machine) = random.pick(&among) else {
            return Ok(());
        };
        if under_way.contains_key(&machine) {
            return Ok(());
        }
        let Some(identity) = self.identity(world, machine, client)? else {
            return Ok(());
        };
        if !self.door(world, machine, &identity, &Operation::Maintenance, &[])? {
            return Ok(());
        }
        let (Some(live), Some(place)) = (world.live(machine), Self::place(world, machine)) else {
            return Ok(());
        };
        let txn = match live.backend().read() {
            Ok(txn) => txn,
            Err(error) => return not_given(world, machine, &error.to_string()),
        };
        if txn.applied().index != place {
            let text = format!(
                "m{machine}, which has applied entry {place}, gives a state of entry {}",
                txn.applied().index
            );
            return Err(Violation::new("backups hold what the log says", text));
        }
        world.say(|| format!("m{machine} begins to give a backup of entry {place}"));
        let backup = Backup {
            life: world.life(machine),
            generation: live.generation(),
            place,
            part: Part::Measured(Box::new(ImageMeasure::new(txn))),
            beside: Beside::default(),
        };
        self.go_on_with(world, machine, backup);
        Ok(())
    }

    fn go_on_with(&mut self, world: &mut World, machine: u64, backup: Backup) {
        // What is under way when clients stop ends soon.
        let pause_ms = if self.is_stopped {
            1
        } else {
            self.backups.pause_ms
        };
        let ms = 1 + self.backups.random.below(pause_ms);
        world.wake(ms, BACKUPS + machine);
        self.backups.under_way.insert(machine, backup);
    }

    /// Reads the next piece of a member's backup.
    pub(super) fn read_backup(&mut self, world: &mut World, machine: u64) -> Checked {
        let Some(mut backup) = self.backups.under_way.remove(&machine) else {
            return Ok(());
        };
        if backup.life != world.life(machine) {
            world.hit("backup given up");
            return Ok(());
        }
        let is_paused = world
            .machine(machine)
            .is_some_and(|m| m.is_paused(world.now_ms()));
        if is_paused {
            self.go_on_with(world, machine, backup);
            return Ok(());
        }
        backup.look(world, machine);
        let place = backup.place;
        match backup.step(self.backups.piece_bytes) {
            Ok((backup, true)) => {
                self.go_on_with(world, machine, backup);
                Ok(())
            }
            Ok((backup, false)) => self.restore(world, machine, backup),
            Err(why) => not_given(world, machine, &format!("of entry {place}: {why}")),
        }
    }

    /// Restores a backup as a new cluster, which must hold what the model says.
    fn restore(&self, world: &mut World, machine: u64, backup: Backup) -> Checked {
        let Backup {
            place,
            part,
            beside,
            ..
        } = backup;
        let Part::Read(image, mut bytes) = part else {
            return Ok(());
        };
        if bytes.len() as u64 != image.image_bytes() {
            let text = format!(
                "m{machine} gives {} bytes, and announced {}",
                bytes.len(),
                image.image_bytes()
            );
            return Err(Violation::new("backups hold what the log says", text));
        }
        drop(image);
        let mut hash = ImageHash::default();
        hash.update(&bytes);
        bytes.extend_from_slice(&hash.finish());
        world.say(|| format!("m{machine} has given a backup of entry {place}: {beside:?}"));
        let now_ms = world.now_ms();
        let restored = world
            .machine(machine)
            .map(|m| m.open_backup(now_ms, bytes, None));
        let opened = match restored {
            None => return Ok(()),
            Some(Ok(opened)) => opened,
            Some(Err(why)) => {
                return not_given(world, machine, &format!("that can be restored: {why}"));
            }
        };
        backup_holds(&self.model, machine, place, &opened.stores)?;
        for (is, name) in [
            (true, "backup taken"),
            (beside.compacts, "backup taken while compacting"),
            (beside.defragments, "backup taken while defragmenting"),
            (
                beside.installs,
                "backup taken while a snapshot was installed",
            ),
        ] {
            if is {
                world.hit(name);
            }
        }
        Ok(())
    }

    /// A member ended, and what it was giving with it.
    pub(super) fn backup_ended(&mut self, world: &mut World, machine: u64) {
        if self.backups.under_way.remove(&machine).is_some() {
            world.hit("backup given up");
        }
    }
}

impl Backup {
    /// Looks at what the member does.
    fn look(&mut self, world: &World, machine: u64) {
        let running = world.machine(machine).and_then(|m| m.running.as_ref());
        if let Some(running) = running {
            self.beside.compacts |= running.compaction.is_some();
            self.beside.defragments |= running.defragmentation.is_some();
            self.beside.installs |= running.live.generation() != self.generation;
        }
    }

    /// Reads a piece; says whether there is more.
    fn step(mut self, bytes: usize) -> Result<(Self, bool), String> {
        let why = |e: ImageError| e.to_string();
        let (part, more) = match self.part {
            Part::Measured(mut measure) => {
                if measure.step().map_err(why)? {
                    (Part::Measured(measure), true)
                } else {
                    let image = measure.finish().map_err(why)?;
                    (Part::Read(Box::new(image), Vec::new()), true)
                }
            }
            Part::Read(mut image, mut all) => {
                let mut piece = vec![0; bytes];
                let count = image.read(&mut piece).map_err(|e| e.to_string())?;
                all.extend(piece.iter().take(count));
                (Part::Read(image, all), count > 0)
            }
        };
        self.part = part;
        Ok((self, more))
    }
}

/// A member gives no backup, which it may when its disk is damaged.
fn not_given(world: &mut World, machine: u64, why: &str) -> Checked {
    let text = format!("m{machine} gives no backup {why}");
    if !world.may_fail(machine) {
        return Err(Violation::new("backups hold what the log says", text));
    }
    world.hit("damaged member could not give a backup");
    world.say(|| text);
    Ok(())
}
