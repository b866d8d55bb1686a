//! Several members, the wires between them, and what an operator does with them.

use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prost::Message;
use quorate_proto::etcdserverpb::{
    DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse, Member as Listed,
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MoveLeaderRequest, MoveLeaderResponse, RangeRequest, RangeResponse, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::disk::Stall;
use super::member::{DiskKind, Member};
use super::proxy::{Network, Place};
use crate::binary::Binary;
use crate::checker::Hash;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::ports::free_port;

/// How long a question to one member may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long something that is not waited for may take.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a change of the members may take, which are refused while a cluster is not whole.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a cluster may take to have a leader, or all members the same revision.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a removed member may take to end itself.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a read that is asked for again and again is waited for, and the time between two.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
const READ_PAUSE: Duration = Duration::from_millis(10);
/// The time between two tries.
const RETRY: Duration = Duration::from_millis(50);

/// How to set up a cluster.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The programs of the members, in turn when there are more members.
    pub binaries: Vec<Binary>,
    /// Members at the beginning.
    pub members: usize,
    /// What their data lies on.
    pub disk: DiskKind,
    /// Arguments of every member after the usual ones.
    pub args: Vec<String>,
    /// For what the wires do at random.
    pub seed: u64,
    /// Members reach each other without a proxy between them; their wires cannot be touched then.
    pub is_direct: bool,
}

impl Setup {
    /// Three members of these programs, in turn, with ordinary disks.
    #[must_use]
    pub fn three(binaries: Vec<Binary>, args: &[&str]) -> Setup {
        Setup {
            binaries,
            members: 3,
            disk: DiskKind::Plain,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            seed: 1,
            is_direct: false,
        }
    }
}

/// What clients may know about a place.
#[derive(Debug)]
pub struct Site {
    /// Host and port of the clients' side, for whatever member is there.
    pub endpoint: String,
    /// Odd while a process runs, and changed by every start and end.
    life: AtomicU64,
    is_in_use: AtomicBool,
}

impl Site {
    /// Which life the member there is in, `None` when there is no process.
    #[must_use]
    pub fn life(&self) -> Option<u64> {
        let life = self.life.load(Ordering::SeqCst);
        (life % 2 == 1).then_some(life)
    }

    /// Whether there is or will soon be a member.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::SeqCst)
    }
}

/// How soon a cluster served again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Healed {
    /// Until some member answered a linearizable read.
    pub first: Duration,
    /// Until every member that runs had answered one.
    pub all: Duration,
}

/// A cluster on this machine.
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    members: Vec<Member>,
    ids: Vec<u64>,
    sites: Arc<Vec<Site>>,
    network: Network,
    runtime: Runtime,
    names: usize,
    defragmented: Arc<AtomicU64>,
    // Last, so that it is removed when nothing is in it any more.
    dir: TempDir,
}

impl Cluster {
    /// Starts a cluster and waits until every member serves. It has one place more than members, for one that joins later.
    ///
    /// # Errors
    /// A member does not start; the text has the end of its log.
    pub fn start(setup: &Setup) -> Outcome<Cluster> {
        let dir = tempfile::Builder::new().prefix("quorate-it-").tempdir()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut cluster = Cluster {
            setup: setup.clone(),
            members: Vec::new(),
            ids: vec![0; setup.members + 1],
            sites: Arc::default(),
            network: Network::new(setup.seed)?,
            runtime,
            names: 0,
            defragmented: Arc::default(),
            dir,
        };
        for place in 0..=setup.members {
            let member = cluster.new_member(place)?;
            let (door, peer) = (member.door_port, member.peer_port);
            if door != peer {
                cluster.network.open_door(place, door, peer)?;
            }
            cluster.members.push(member);
        }
        let site = |(place, member): (usize, &Member)| Site {
            endpoint: member.endpoint(),
            life: AtomicU64::new(0),
            is_in_use: AtomicBool::new(place < setup.members),
        };
        cluster.sites = Arc::new(cluster.members.iter().enumerate().map(site).collect());
        let first = &cluster.members[..setup.members];
        let initial = initial_cluster(first.iter().map(|m| (m.name.clone(), m.peer_url())));
        for place in 0..setup.members {
            cluster.members[place].initial_cluster.clone_from(&initial);
            cluster.spawn(place)?;
        }
        for place in 0..setup.members {
            cluster.wait_ready(place)?;
        }
        Ok(cluster)
    }

    fn new_member(&mut self, place: Place) -> Outcome<Member> {
        let name = format!("m{}", self.names);
        self.names += 1;
        let binary = &self.setup.binaries[place % self.setup.binaries.len()];
        let (client, peer) = (free_port(), free_port());
        let door = if self.setup.is_direct {
            peer
        } else {
            free_port()
        };
        let ports = [client, peer, door];
        let dir = self.dir.path().join(format!("place-{place}"));
        let mut member = Member::new(name, binary.clone(), ports, dir, self.setup.disk)?;
        member.args.clone_from(&self.setup.args);
        Ok(member)
    }

    /// What clients may know, by place.
    #[must_use]
    pub fn sites(&self) -> Arc<Vec<Site>> {
        Arc::clone(&self.sites)
    }

    /// The wires.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The member at a place.
    #[must_use]
    pub fn member(&self, place: Place) -> &Member {
        &self.members[place]
    }

    /// The programs that the cluster was set up with.
    #[must_use]
    pub fn binaries(&self) -> &[Binary] {
        &self.setup.binaries
    }

    /// The scratch directory, with a folder for each place.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The places that have a member.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let in_use = |place: &Place| self.sites[*place].is_in_use();
        (0..self.members.len()).filter(in_use).collect()
    }

    /// The places whose member runs and is not paused.
    #[must_use]
    pub fn running(&self) -> Vec<Place> {
        let runs =
            |place: &Place| self.members[*place].is_running() && !self.members[*place].is_paused();
        self.places().into_iter().filter(runs).collect()
    }

    /// A place without a member.
    #[must_use]
    pub fn spare(&self) -> Option<Place> {
        (0..self.members.len()).find(|place| !self.sites[*place].is_in_use())
    }

    fn spawn(&mut self, place: Place) -> Outcome {
        self.members[place].spawn()?;
        self.network.set_process(place, self.members[place].pid());
        self.sites[place].is_in_use.store(true, Ordering::SeqCst);
        self.turn(place);
        Ok(())
    }

    /// A process has begun or ended.
    fn turn(&self, place: Place) {
        self.sites[place].life.fetch_add(1, Ordering::SeqCst);
    }

    fn wait_ready(&mut self, place: Place) -> Outcome {
        self.members[place].wait_ready()?;
        self.learn_id(place)
    }

    fn learn_id(&mut self, place: Place) -> Outcome {
        if self.ids[place] != 0 {
            return Ok(());
        }
        let status = self.retry(SETTLE_TIMEOUT, |cluster| {
            cluster.status(place).map_err(Failure::from)
        })?;
        self.ids[place] = status.header.unwrap_or_default().member_id;
        Ok(())
    }

    /// Starts a member that was stopped, and does not wait until it serves.
    ///
    /// # Errors
    /// There is no process to be had.
    pub fn begin_start(&mut self, place: Place) -> Outcome {
        self.spawn(place)
    }

    /// Waits until a member serves.
    ///
    /// # Errors
    /// It does not.
    pub fn end_start(&mut self, place: Place) -> Outcome {
        self.wait_ready(place)
    }

    /// Kills a member.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn kill(&mut self, place: Place) -> Outcome {
        self.members[place].kill()?;
        self.turn(place);
        Ok(())
    }

    /// Sends a member the signal to end.
    ///
    /// # Errors
    /// It is not running.
    pub fn begin_stop(&mut self, place: Place) -> Outcome {
        self.members[place].signal(Signal::TERM)
    }

    /// Waits until a member has ended that was told to, or that is to end by itself, and tells how it did.
    ///
    /// # Errors
    /// It does not.
    pub fn end_stop(&mut self, place: Place) -> Outcome<ExitStatus> {
        let ended = self.members[place].wait_end()?;
        self.turn(place);
        Ok(ended)
    }

    /// Starts a member that was stopped, with more arguments this time, and waits until it serves.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(&mut self, place: Place, args: &[&str]) -> Outcome {
        let usual = self.members[place].args.clone();
        let more = args.iter().map(|&arg| arg.to_owned());
        self.members[place].args.extend(more);
        let started = self.spawn(place).and_then(|()| self.wait_ready(place));
        self.members[place].args = usual;
        started
    }

    /// Takes a member that does not run out of the count, without the cluster being told.
    pub fn forget(&self, place: Place) {
        self.sites[place].is_in_use.store(false, Ordering::SeqCst);
    }

    /// Opens another door for a member, to be used from its next start on, and gives its URL.
    ///
    /// # Errors
    /// The port is taken.
    pub fn move_door(&mut self, place: Place) -> Outcome<String> {
        let (old, new) = (self.members[place].peer_url(), free_port());
        self.members[place].door_port = new;
        self.network
            .open_door(place, new, self.members[place].peer_port)?;
        let url = self.members[place].peer_url();
        let initial = self.members[place].initial_cluster.replace(&old, &url);
        self.members[place].initial_cluster = initial;
        Ok(url)
    }

    /// The id of the member at a place.
    #[must_use]
    pub fn id(&self, place: Place) -> u64 {
        self.ids[place]
    }

    /// Whether a member's process has ended by itself; it is not running then.
    ///
    /// # Errors
    /// The system does not say.
    pub fn has_ended(&mut self, place: Place) -> Outcome<bool> {
        let ended = self.members[place].poll()?.is_some();
        if ended {
            self.turn(place);
        }
        Ok(ended)
    }

    /// Stops a member's process where it is, or lets it go on.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&mut self, place: Place, is_paused: bool) -> Outcome {
        let signal = if is_paused {
            Signal::STOP
        } else {
            Signal::CONT
        };
        self.members[place].signal(signal)
    }

    /// Takes all the space on a member's disk, or gives it back.
    ///
    /// # Errors
    /// Its disk is not small.
    pub fn fill_disk(&self, place: Place, is_full: bool) -> Outcome {
        self.members[place].fill_disk(is_full)
    }

    /// Holds up a member's syncs.
    ///
    /// # Errors
    /// Its disk is not slow.
    pub fn stall_disk(&self, place: Place, stall: Stall) -> Outcome {
        self.members[place].stall_disk(stall)
    }

    /// The processor time of all members so far.
    ///
    /// # Errors
    /// One is not running.
    pub fn cpu(&self) -> Outcome<Duration> {
        let places = self.places();
        let times = places.iter().map(|place| self.members[*place].cpu());
        times.sum()
    }

    /// Asks one member.
    ///
    /// # Errors
    /// Its answer, or that there was none in time.
    pub fn ask<Q, A>(&self, place: Place, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ask_as(place, None, method, request)
    }

    /// Asks one member with the token of a user.
    ///
    /// # Errors
    /// Its answer, or that there was none in time.
    pub fn ask_as<Q, A>(
        &self,
        place: Place,
        token: Option<&str>,
        method: &str,
        request: Q,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let endpoint = &self.sites[place].endpoint;
        let mut metadata = MetadataMap::new();
        if let Some(token) = token {
            let token = token.parse().map_err(|_| Status::internal("no token"))?;
            metadata.insert("token", token);
        }
        let path = format!("/etcdserverpb.{method}");
        self.block_on(async {
            let client = Client::lazy(endpoint).map_err(|e| Status::internal(e.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = client.unary(&path, request, codec, metadata);
            let late = |_| Status::deadline_exceeded("no answer in time");
            tokio::time::timeout(QUESTION_TIMEOUT, answer)
                .await
                .map_err(late)?
        })
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Asks any member that runs, until one has done it.
    fn ask_any<Q, A>(&self, not: Option<Place>, method: &str, request: &Q) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut last = Status::unavailable("no member runs");
        for place in self.running() {
            if Some(place) == not {
                continue;
            }
            match self.ask(place, method, request.clone()) {
                Err(status) => last = status,
                done => return done,
            }
        }
        Err(last)
    }

    fn retry<T>(
        &self,
        limit: Duration,
        mut step: impl FnMut(&Cluster) -> Outcome<T>,
    ) -> Outcome<T> {
        let deadline = Instant::now() + limit;
        loop {
            match step(self) {
                Err(failure) if Instant::now() > deadline => return Err(failure),
                Err(_) => thread::sleep(RETRY),
                done => return done,
            }
        }
    }

    /// Asks every running member for a linearizable read until it answers, and gives how long that took.
    ///
    /// # Errors
    /// One does not answer in time.
    pub fn time_to_serve(&self, limit: Duration) -> Outcome<Healed> {
        let begun = Instant::now();
        let endpoints = self.running();
        let endpoints = endpoints.iter().map(|place| &self.sites[*place].endpoint);
        let times = self.block_on(async {
            let mut reads = JoinSet::new();
            for client in endpoints.filter_map(|endpoint| Client::lazy(endpoint).ok()) {
                reads.spawn(async move { first_read(&client, begun, limit).await });
            }
            reads.join_all().await
        });
        let times: Option<Vec<Duration>> = times.into_iter().collect();
        let times = times.ok_or_else(|| {
            let text = format!("a member answers no read for {} s", limit.as_secs());
            Failure::new(text)
        })?;
        Ok(Healed {
            first: times.iter().min().copied().unwrap_or_default(),
            all: times.iter().max().copied().unwrap_or_default(),
        })
    }

    /// What a member says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, place: Place) -> Result<StatusResponse, Status> {
        self.ask(place, "Maintenance/Status", StatusRequest {})
    }

    /// The member that says of itself that it leads, in the latest term.
    #[must_use]
    pub fn leader(&self) -> Option<Place> {
        let led = self.running().into_iter().filter_map(|place| {
            let status = self.status(place).ok()?;
            let own = status.header?.member_id;
            (status.leader == own).then_some((status.raft_term, place))
        });
        led.max().map(|(_, place)| place)
    }

    /// Waits until there is a leader.
    ///
    /// # Errors
    /// There is none in time.
    pub fn wait_leader(&self) -> Outcome<Place> {
        self.retry(SETTLE_TIMEOUT, |cluster| {
            cluster
                .leader()
                .ok_or_else(|| Failure::new("the cluster has no leader"))
        })
    }

    /// Asks the leader to hand over to another member.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub fn move_leader(&self, from: Place, to: Place) -> Result<(), Status> {
        let request = MoveLeaderRequest {
            target_id: self.ids[to],
        };
        let _: MoveLeaderResponse = self.ask(from, "Maintenance/MoveLeader", request)?;
        Ok(())
    }

    /// Has a member make its files smaller, on a thread that is left to itself.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn begin_defragment(&self, place: Place) -> Outcome<JoinHandle<()>> {
        let done = Arc::clone(&self.defragmented);
        self.begin(place, |client| async move {
            let answer: Result<DefragmentResponse, Status> = client
                .call("Maintenance/Defragment", DefragmentRequest {})
                .await;
            // One that was killed meanwhile, or gets a snapshot, does not.
            if answer.is_ok() {
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// How many times a member said that it has made its files smaller.
    pub fn defragmented(&self) -> u64 {
        self.defragmented.load(Ordering::Relaxed)
    }

    /// Has a member send its whole state, which is thrown away.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn begin_backup(&self, place: Place) -> Outcome<JoinHandle<()>> {
        self.begin(place, |client| async move {
            let codec = ProstCodec::<SnapshotRequest, SnapshotResponse>::default();
            let path = "/etcdserverpb.Maintenance/Snapshot";
            let parts = client.server_stream(path, SnapshotRequest {}, codec, MetadataMap::new());
            if let Ok(mut parts) = parts.await {
                while let Ok(Some(_)) = parts.message().await {}
            }
        })
    }

    fn begin<F>(
        &self,
        place: Place,
        question: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Outcome<JoinHandle<()>>
    where
        F: Future<Output = ()>,
    {
        let endpoint = self.sites[place].endpoint.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(thread::Builder::new().spawn(move || {
            runtime.block_on(async {
                if let Ok(client) = Client::lazy(&endpoint) {
                    // The member may be killed or paused meanwhile.
                    let _ = tokio::time::timeout(ASIDE_TIMEOUT, question(client)).await;
                }
            });
        })?)
    }

    /// The members as the cluster lists them.
    ///
    /// # Errors
    /// No member answers.
    pub fn list(&self) -> Outcome<Vec<Listed>> {
        let request = MemberListRequest { linearizable: true };
        let listed: MemberListResponse = self.ask_any(None, "Cluster/MemberList", &request)?;
        Ok(listed.members)
    }

    /// Removes a member from the cluster; running, it must end by itself.
    ///
    /// # Errors
    /// The cluster does not let go of it, or it does not end.
    pub fn remove(&mut self, place: Place) -> Outcome {
        let id = self.ids[place];
        self.retry(CHANGE_TIMEOUT, |cluster| {
            if cluster.list()?.iter().all(|member| member.id != id) {
                return Ok(());
            }
            let request = MemberRemoveRequest { id };
            let done: Result<MemberRemoveResponse, Status> =
                cluster.ask_any(Some(place), "Cluster/MemberRemove", &request);
            // A try without an answer may have done it.
            match done {
                Err(status) if status.code() != Code::NotFound => Err(status.into()),
                _ => Ok(()),
            }
        })?;
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while self.members[place].is_running() && !self.has_ended(place)? {
            if Instant::now() > deadline {
                return Err(self.members[place].failure("was removed and does not end"));
            }
            thread::sleep(RETRY);
        }
        self.sites[place].is_in_use.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Adds a new member without data at a place, starts it and waits until it serves; a learner may not be able to say that it
    /// does before it has caught up.
    ///
    /// # Errors
    /// The cluster does not take it, or it does not start.
    pub fn add(&mut self, place: Place, binary: Option<&Binary>, is_learner: bool) -> Outcome {
        let name = format!("m{}", self.names);
        self.names += 1;
        let member = &mut self.members[place];
        member.wipe()?;
        member.name = name;
        member.is_joining = true;
        if let Some(binary) = binary {
            member.binary = binary.clone();
        }
        let url = member.peer_url();
        let listed = self.retry(CHANGE_TIMEOUT, |cluster| {
            let listed = cluster.list()?;
            if listed.iter().any(|m| m.peer_ur_ls.contains(&url)) {
                return Ok(listed);
            }
            let request = MemberAddRequest {
                peer_ur_ls: vec![url.clone()],
                is_learner,
            };
            let added: MemberAddResponse =
                cluster.ask_any(Some(place), "Cluster/MemberAdd", &request)?;
            Ok(added.members)
        })?;
        let urls = listed.iter().filter_map(|m| m.peer_ur_ls.first());
        let named = urls.filter_map(|url| {
            let of_url = self.members.iter().find(|m| m.peer_url() == *url)?;
            Some((of_url.name.clone(), url.clone()))
        });
        self.members[place].initial_cluster = initial_cluster(named);
        let id = listed.iter().find(|m| m.peer_ur_ls.contains(&url));
        self.ids[place] = id.map_or(0, |member| member.id);
        self.spawn(place)?;
        self.wait_ready(place)
    }

    /// Promotes a learner, which is refused until it has caught up.
    ///
    /// # Errors
    /// It is refused for too long.
    pub fn promote(&self, place: Place) -> Outcome {
        let id = self.ids[place];
        self.retry(CHANGE_TIMEOUT, |cluster| {
            let listed = cluster.list()?;
            if listed.iter().any(|m| m.id == id && !m.is_learner) {
                return Ok(());
            }
            let request = MemberPromoteRequest { id };
            let _: MemberPromoteResponse =
                cluster.ask_any(None, "Cluster/MemberPromote", &request)?;
            Ok(())
        })
    }

    /// Waits until every member has applied what any of them has, and gives that revision.
    ///
    /// # Errors
    /// They do not come together in time.
    pub fn converge(&self) -> Outcome<i64> {
        self.retry(SETTLE_TIMEOUT, |cluster| {
            let mut seen = Vec::new();
            for place in cluster.places() {
                let status = cluster.status(place)?;
                seen.push(status.header.unwrap_or_default().revision);
            }
            match seen.iter().max() {
                Some(last) if seen.iter().all(|revision| revision == last) => Ok(*last),
                _ => Err(Failure::new(format!(
                    "the members are at revisions {seen:?}"
                ))),
            }
        })
    }

    /// The hash of every member at the revision that all of them have.
    ///
    /// # Errors
    /// They do not come together in time, or do not agree on what is compacted.
    pub fn hashes(&self) -> Outcome<Vec<Hash>> {
        self.retry(SETTLE_TIMEOUT, |cluster| {
            let revision = cluster.converge()?;
            let mut hashes = Vec::new();
            for place in cluster.places() {
                let request = HashKvRequest { revision };
                let hash: HashKvResponse = cluster.ask(place, "Maintenance/HashKV", request)?;
                hashes.push(Hash {
                    member: cluster.members[place].name.clone(),
                    revision,
                    compacted: hash.compact_revision,
                    hash: hash.hash,
                });
            }
            let is_same = |hash: &Hash| hash.compacted == hashes[0].compacted;
            if hashes.iter().all(is_same) {
                return Ok(hashes);
            }
            Err(Failure::new(format!(
                "the members have compacted differently: {hashes:?}"
            )))
        })
    }

    /// What each member runs and where, for a report.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for place in self.places() {
            let member = &self.members[place];
            let _ = writeln!(
                text,
                "  {} at {}: {}",
                member.name,
                member.endpoint(),
                member.binary.path().display()
            );
        }
        text
    }

    /// A failure with the end of every member's log.
    #[must_use]
    pub fn failure(&self, what: &str) -> Failure {
        let logs = self
            .places()
            .into_iter()
            .map(|place| self.members[place].failure("printed last").to_string());
        Failure::new(format!("{what}\n{}", logs.collect::<Vec<_>>().join("\n")))
    }
}

/// Asks for a linearizable read until there is an answer; gives how long after `begun` that was, `None` when it is too late.
async fn first_read(client: &Client, begun: Instant, limit: Duration) -> Option<Duration> {
    while begun.elapsed() < limit {
        let request = RangeRequest {
            key: "served".into(),
            ..RangeRequest::default()
        };
        let read = client.call::<_, RangeResponse>("KV/Range", request);
        if let Ok(Ok(_)) = tokio::time::timeout(READ_TIMEOUT, read).await {
            return Some(begun.elapsed());
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
    None
}

fn initial_cluster(members: impl Iterator<Item = (String, String)>) -> String {
    let pairs = members.map(|(name, url)| format!("{name}={url}"));
    pairs.collect::<Vec<_>>().join(",")
}
