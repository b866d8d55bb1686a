//! `Maintenance.Defragment`.
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_auth::Operation;
use quorate_backend::{
    DefragmentJob, DefragmentOptions, Defragmented, Defragmenting, Error, Sizes,
};
use quorate_proto::etcdserverpb as pb;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::context::Context;
use crate::background::Pace;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::seam::Answer;
use crate::status::{Code, Status};

/// Defragmentations of the process, one after the other.
static TURN: Semaphore = Semaphore::const_new(1);

/// What there is to tell of a defragmentation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DefragmentNews {
    /// It begins, with a database of these sizes.
    Started(Sizes),
    /// It ended well.
    Finished {
        /// What it came to.
        what: Defragmented,
        /// How long it took.
        took: Duration,
    },
    /// It ended without success; the database is as before.
    Failed(String),
}

/// Takes the news.
type Told = dyn Fn(&DefragmentNews) + Send + Sync;

/// Who is told of defragmentations, if anybody.
#[derive(Clone, Default)]
pub struct DefragmentLog(pub Option<Arc<Told>>);

impl std::fmt::Debug for DefragmentLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_there = self.0.is_some();
        f.debug_tuple("DefragmentLog").field(&is_there).finish()
    }
}

impl DefragmentLog {
    fn tell(&self, news: &DefragmentNews) {
        if let Some(log) = &self.0 {
            log(news);
        }
    }
}

/// Defragments the member's database. Once begun it goes on whether the caller waits or not, until the member stops: what
/// takes longer than callers wait would never be done.
pub(super) fn defragment(context: &Rc<Context>, metadata: &Metadata) -> Answer {
    let (context, metadata) = (context.clone(), metadata.clone());
    Answer::later(async move {
        let identity = context.identity(&metadata).await?;
        context.gate(&identity, &Operation::Maintenance)?;
        // It fails only when the runtime is on its way out.
        let turn = TURN.acquire().await.map_err(|_| Status::STOPPED)?;
        let work = tokio::task::spawn_local(run(context, turn));
        work.await.map_err(|_| Status::STOPPED)?
    })
}

async fn run(context: Rc<Context>, turn: SemaphorePermit<'static>) -> Result<Message, Status> {
    let log = &context.options.defragment_log;
    let backend = context.handles.live.backend();
    let shown = context.registry.maintenance().defragmenting();
    let begun = Instant::now();
    log.tell(&DefragmentNews::Started(backend.sizes()));
    let mut pace = Pace::new(context.handles.view.clone());
    let begin = move |(): &mut ()| backend.defragment(DefragmentOptions::default());
    let ended = match pace.step((), begin).await? {
        ((), Ok(job)) => steps(&context, &mut pace, job).await?,
        ((), Err(error)) => Err(error),
    };
    drop(shown);
    drop(turn);
    match ended {
        Ok(what) => {
            let took = begun.elapsed();
            log.tell(&DefragmentNews::Finished { what, took });
            Ok(Message::encode(&pb::DefragmentResponse { header: None }))
        }
        Err(error) => {
            let text = error.to_string();
            log.tell(&DefragmentNews::Failed(text.clone()));
            Err(Status::new(Code::Unknown, text))
        }
    }
}

async fn steps(
    context: &Context,
    pace: &mut Pace,
    mut job: DefragmentJob,
) -> Result<Result<Defragmented, Error>, Status> {
    while context.is_serving() {
        let step = |job: &mut Option<DefragmentJob>| job.take().map(DefragmentJob::step);
        job = match pace.step(Some(job), step).await? {
            (_, Some(Ok(Defragmenting::More(more)))) => more,
            (_, Some(Ok(Defragmenting::Done(done)))) => return Ok(Ok(done)),
            (_, Some(Err(error))) => return Ok(Err(error)),
            (_, None) => unreachable!("the job was given to the step"),
        };
    }
    // Giving up may wait for a flush.
    let give_up = |job: &mut Option<DefragmentJob>| drop(job.take());
    pace.step(Some(job), give_up).await?;
    Err(Status::STOPPED)
}
