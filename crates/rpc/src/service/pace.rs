//! Long work in small steps, at a pace that leaves a busy member its processors.
use std::time::{Duration, Instant};

use super::context::Context;
use crate::background;
use crate::status::Status;

/// How long nothing is done after a step, as a multiple of the time it took, while the member applies entries meanwhile.
const PAUSE_FACTOR: u32 = 2;
/// The longest pause: a step that took long because the machine is busy must not make the work endless.
const PAUSE_MAX: Duration = Duration::from_millis(30);

/// Runs steps in the background, one of the whole process at a time, with pauses while there is other work.
pub(super) struct Pace<'a> {
    context: &'a Context,
    applied: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self {
            context,
            applied: context.handles.view.applied(),
        }
    }

    pub(super) async fn step<T: Send + 'static, R: Send + 'static>(
        &mut self,
        mut what: T,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<(T, R), Status> {
        let done = background::run(move || {
            let begun = Instant::now();
            let done = work(&mut what);
            (what, done, begun.elapsed())
        });
        let (what, done, took) = done.await?;
        let applied = self.context.handles.view.applied();
        if applied != self.applied {
            self.applied = applied;
            tokio::time::sleep(PAUSE_MAX.min(took * PAUSE_FACTOR)).await;
        }
        Ok((what, done))
    }
}
