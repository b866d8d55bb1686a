//! Writes at a steady pace, whatever comes of them: how long a cluster takes none.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{PutRequest, PutResponse};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::fleet::Site;
use crate::client::Client;
use crate::failure::{Failure, Outcome};

/// The time between two writes, and with that how exact a gap is known.
const PACE: Duration = Duration::from_millis(2);
/// How long a write is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Writes under way at the same time.
const UNDER_WAY_MAX: usize = 4_000;

/// A steady stream of writes to all members in turn, on a thread of its own.
#[derive(Debug)]
pub struct Probe {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Vec<Instant>>>,
}

impl Probe {
    /// Begins to write.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(sites: &Arc<Vec<Site>>) -> Outcome<Probe> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sites = Arc::clone(sites);
        let thread = thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || runtime.block_on(write(sites, ended)))?;
        Ok(Probe {
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Ends and gives the times at which a write was acknowledged, in order.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn finish(mut self) -> Outcome<Vec<Instant>> {
        drop(self.end.take());
        let joined = self.thread.take().map(JoinHandle::join);
        match joined {
            Some(Ok(times)) => Ok(times),
            _ => Err(Failure::new("the probe panicked")),
        }
    }
}

async fn write(sites: Arc<Vec<Site>>, mut ended: oneshot::Receiver<()>) -> Vec<Instant> {
    let used = sites.iter().filter(|site| site.is_in_use());
    let clients: Vec<Client> = used
        .filter_map(|site| Client::lazy(&site.endpoint).ok())
        .collect();
    let (done, mut acknowledged) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for client in clients.iter().cycle() {
        tokio::select! {
            _ = pace.tick() => {}
            _ = &mut ended => break,
        }
        let (client, done) = (client.clone(), done.clone());
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        tokio::spawn(async move {
            let request = PutRequest {
                key: "probe".into(),
                value: "probe".into(),
                ..PutRequest::default()
            };
            let put = client.call::<_, PutResponse>("KV/Put", request);
            if let Ok(Ok(_)) = timeout(ANSWER_TIMEOUT, put).await {
                // The receiver lives as long as this thread.
                let _ = done.send(Instant::now());
            }
            drop(place);
        });
    }
    acknowledged.close();
    let mut times = Vec::new();
    while let Some(time) = acknowledged.recv().await {
        times.push(time);
    }
    times.sort_unstable();
    times
}
