//! Clients that watch: one on every member that sees everything, and others that come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_proto::etcdserverpb::{
    WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use super::load::{Shared, Stage};
use super::translate::{message, watch_request};
use crate::checker::{KeyRange, Watch};
use crate::client::{Client, Sender};
use crate::random::Random;

/// How long opening a watch may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a watch looks up.
const LOOK: Duration = Duration::from_millis(200);
/// A watch on which nothing came for so long is given up: the member may have been cut off.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a client watches before it goes elsewhere.
const STAY: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(6));
/// How long a watch may take to show everything when all faults are over.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// What a watching client saw.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) watches: Vec<Watch>,
    /// Where it stopped, when it did not come to the end.
    pub(super) behind: Option<String>,
}

/// A client that watches, one stream after the other.
struct Watcher {
    number: usize,
    shared: Arc<Shared>,
    range: KeyRange,
    previous: bool,
    /// The revision from which on it has not seen everything; 0 before it has seen anything.
    next: i64,
    watches: Vec<Watch>,
    /// The place for which it tells how far it has come.
    collects: Option<usize>,
    catching_up: Option<Instant>,
}

/// Why a stream was left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// To try again.
    Again,
    /// Everything was shown.
    Finished,
    /// It took too long.
    TooLate,
}

impl Watcher {
    /// Whether everything was shown that there is.
    fn is_finished(&self) -> Option<Left> {
        let Stage::CatchUp(last) = *self.shared.stage.borrow() else {
            return None;
        };
        if self.next > last {
            return Some(Left::Finished);
        }
        let since = self
            .catching_up
            .map_or(Duration::ZERO, |since| since.elapsed());
        (since > CATCH_UP_TIMEOUT).then_some(Left::TooLate)
    }

    fn look_up(&mut self) -> Option<Left> {
        if self.catching_up.is_none() && matches!(*self.shared.stage.borrow(), Stage::CatchUp(_)) {
            self.catching_up = Some(Instant::now());
        }
        self.is_finished()
    }

    /// Watches one member for a while.
    async fn watch(&mut self, place: usize, stay: Option<Duration>) -> Left {
        let mut watch = Watch {
            client: self.number,
            member: place,
            range: self.range.clone(),
            from: self.next,
            previous: self.previous,
            messages: Vec::new(),
        };
        let left = self.read(place, stay, &mut watch).await;
        if !watch.messages.is_empty() {
            self.watches.push(watch);
        }
        left.unwrap_or(Left::Again)
    }

    async fn read(
        &mut self,
        place: usize,
        stay: Option<Duration>,
        watch: &mut Watch,
    ) -> Option<Left> {
        let (requests, mut answers) = self.open(place, watch).await?;
        let until = stay.map(|stay| Instant::now() + stay);
        let mut last = Instant::now();
        loop {
            if let Some(left) = self.look_up() {
                return Some(left);
            }
            if until.is_some_and(|until| Instant::now() > until) || last.elapsed() > SILENCE {
                return None;
            }
            let Ok(answer) = timeout(LOOK, answers.message()).await else {
                // Who asks for progress learns that nothing is missing; a full queue has asked already.
                let _ = requests.try_send(progress());
                continue;
            };
            last = Instant::now();
            let message = message(answer.ok()??, self.shared.now_us());
            let is_over = message.compacted > 0;
            self.take(&message, watch.from);
            watch.messages.push(message);
            if is_over {
                return None;
            }
        }
    }

    async fn open(
        &self,
        place: usize,
        watch: &Watch,
    ) -> Option<(Sender<WatchRequest>, Streaming<WatchResponse>)> {
        let client = Client::lazy(&self.shared.sites[place].endpoint).ok()?;
        let opening = client.stream("Watch/Watch", watch_request(watch));
        timeout(OPEN_TIMEOUT, opening).await.ok()?.ok()
    }

    /// Moves on with what a message shows.
    fn take(&mut self, message: &crate::checker::Message, from: i64) {
        if message.compacted > 0 {
            self.next = self.next.max(message.compacted);
        } else if let Some(event) = message.events.last() {
            self.next = self.next.max(event.kv.modified + 1);
        } else if !message.is_created || from == 0 {
            self.next = self.next.max(message.revision + 1);
        }
        if let Some(place) = self.collects {
            let (revision, at) = &self.shared.seen[place];
            revision.store(self.next - 1, Ordering::Relaxed);
            at.store(self.shared.now_us(), Ordering::Relaxed);
        }
    }

    fn watched(self, left: &Left) -> Watched {
        let place = self.watches.last().map(|watch| watch.member);
        let behind = format!(
            "client {} of {:?} needs {} next, last on member {place:?}",
            self.number, self.range, self.next
        );
        Watched {
            watches: self.watches,
            behind: (*left == Left::TooLate).then_some(behind),
        }
    }
}

fn progress() -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
    }
}

/// Watches everything on one member from the first revision on, over all its lives.
pub(super) async fn collect(number: usize, place: usize, shared: Arc<Shared>) -> Watched {
    let mut watcher = Watcher {
        number,
        shared: Arc::clone(&shared),
        range: KeyRange::all(),
        previous: place.is_multiple_of(2),
        next: 1,
        watches: Vec::new(),
        collects: Some(place),
        catching_up: None,
    };
    loop {
        if let Some(left) = watcher.look_up() {
            return watcher.watched(&left);
        }
        let site = &shared.sites[place];
        if !site.is_in_use() && matches!(*shared.stage.borrow(), Stage::CatchUp(_)) {
            return watcher.watched(&Left::Finished);
        }
        if site.life().is_some() {
            let left = watcher.watch(place, None).await;
            if left != Left::Again {
                return watcher.watched(&left);
            }
        }
        sleep(LOOK).await;
    }
}

/// Watches a range now here, now there, and goes on where it was.
pub(super) async fn follow(number: usize, shared: Arc<Shared>, mut random: Random) -> Watched {
    let ranges = [
        KeyRange::prefix(b"k/"),
        KeyRange::single(b"k/07"),
        KeyRange::prefix(b"l/"),
        KeyRange::prefix(b"t/"),
    ];
    let range = ranges[number % ranges.len()].clone();
    let mut watcher = Watcher {
        number,
        shared: Arc::clone(&shared),
        range,
        previous: random.one_in(2),
        next: 0,
        watches: Vec::new(),
        collects: None,
        catching_up: None,
    };
    loop {
        if let Some(left) = watcher.look_up() {
            return watcher.watched(&left);
        }
        let place = shared.any_place(&mut random);
        let stay = random.between(STAY.0, STAY.1);
        let left = watcher.watch(place, Some(stay)).await;
        if left != Left::Again {
            return watcher.watched(&left);
        }
        shared.pause(random.between(Duration::ZERO, LOOK)).await;
        sleep(Duration::from_millis(1)).await;
    }
}
