//! The handle by which a member reaches the others.
use std::collections::btree_map::Entry;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::Member;
use quorate_proto::raftpb::{Message, MessageType};
use quorate_proto::{LeaseId, MemberId};
use tokio::runtime::Handle;

use crate::headers::Identity;
use crate::inbound;
use crate::metrics::Standing;
use crate::outbound::{LeaseQuestion, PeerClient, exchange, on_runtime};
use crate::peer::{Peer, Remote};
use crate::shared::Shared;
use crate::url::PeerUrl;
use crate::{
    Config, Error, HashKv, ImageSource, ImageStore, PeerMetrics, Receiver, Refusal, Service,
    TimeToLive, Versions,
};

/// Members that are answered though they are not known yet.
const REMOTES_MAX: usize = 16;

/// The links of one member to all others. Cheap to clone, and callable from any thread: nothing here blocks but for the
/// `async` calls, which may be awaited on any runtime.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

/// What stands behind a transport.
pub struct Parts {
    /// Takes messages and reports.
    pub receiver: Arc<dyn Receiver>,
    /// Answers other members' questions.
    pub service: Arc<dyn Service>,
    /// Gives images to be sent.
    pub images: Arc<dyn ImageSource>,
    /// Keeps images received.
    pub store: Arc<dyn ImageStore>,
}

impl Transport {
    /// Makes a transport without peers, whose tasks run on `handle`'s runtime (with time and sockets enabled).
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if a version or URL of the configuration is none.
    pub fn start(config: Config, parts: Parts, handle: Handle) -> Result<Self, Error> {
        let identity = Identity::new(&config)?;
        let shared = Arc::new(Shared::new(config, identity, parts, handle));
        Ok(Self { shared })
    }

    /// Serves other members on a listener, beside those given before. Returns its address.
    ///
    /// # Errors
    ///
    /// If the listener cannot be watched.
    pub fn listen(&self, listener: std::net::TcpListener) -> Result<SocketAddr, Error> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _context = self.shared.handle.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let serving = inbound::serve(Arc::clone(&self.shared), listener);
        self.shared.handle.spawn(serving);
        Ok(address)
    }

    /// Sends messages, in order, each to the member it names. What cannot be sent is dropped and reported to the
    /// [`Receiver`]; messages to nobody are ignored.
    pub fn send(&self, messages: Vec<Message>) {
        let mut rest = messages;
        while let Some(first) = rest.first() {
            let to = MemberId(first.to());
            let (mine, others): (Vec<Message>, Vec<Message>) =
                rest.into_iter().partition(|message| message.to() == to.0);
            rest = others;
            self.send_to(to, mine);
        }
    }

    fn send_to(&self, to: MemberId, messages: Vec<Message>) {
        if to == MemberId(0) {
            return;
        }
        let peer = self.shared.peers.read().get(&to).cloned();
        if let Some(peer) = peer {
            peer.send(&self.shared, messages);
            return;
        }
        let remote = self.shared.remotes.read().get(&to).cloned();
        if let Some(remote) = remote {
            remote.send(messages);
            return;
        }
        tracing::debug!(
            "unknown-target-peer-id" = %to,
            "ignored message send request; unknown remote peer target"
        );
        let is_snapshot = |message: &Message| message.r#type() == MessageType::MsgSnap;
        if messages.iter().any(is_snapshot) {
            self.shared.receiver.snapshot_sent(to, false);
        }
    }

    /// Adds a peer and begins to dial it. A peer that is there already stays as it is; this member itself is no peer.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] if there is no URL or one is none; [`Error::Stopped`].
    pub fn add_peer(&self, id: MemberId, urls: &[String]) -> Result<(), Error> {
        if id == self.shared.identity.member_id {
            return Ok(());
        }
        let parsed = PeerUrl::parse_all(urls)?;
        let mut peers = self.shared.peers.write();
        if self.shared.is_stopped() {
            return Err(Error::Stopped);
        }
        if let Entry::Vacant(place) = peers.entry(id) {
            place.insert(Peer::start(&self.shared, id, parsed));
            if let Some(remote) = self.shared.remotes.write().remove(&id) {
                remote.stop();
            }
            tracing::info!("remote-peer-id" = %id, "remote-peer-urls" = ?urls, "added remote peer");
        }
        Ok(())
    }

    /// Changes where a peer is reached. One that is not there, because it had no URL of use before, is added.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] if there is no URL or one is none; [`Error::Stopped`].
    pub fn update_peer(&self, id: MemberId, urls: &[String]) -> Result<(), Error> {
        let parsed = PeerUrl::parse_all(urls)?;
        self.add_peer(id, urls)?;
        if let Some(peer) = self.shared.peers.read().get(&id) {
            peer.link.picker.update(parsed);
            tracing::info!(
                "updated-remote-peer-id" = %id,
                "updated-remote-peer-urls" = ?urls,
                "updated remote peer"
            );
        }
        Ok(())
    }

    /// Ends the links to a peer, after sending what waits on its streams.
    pub fn remove_peer(&self, id: MemberId) {
        let removed = self.shared.peers.write().remove(&id);
        if let Some(remote) = self.shared.remotes.write().remove(&id) {
            remote.stop();
        }
        if let Some(peer) = removed {
            peer.stop();
            tracing::info!("removed-remote-peer-id" = %id, "removed remote peer");
        }
    }

    /// Ends the links to all peers.
    pub fn clear_peers(&self) {
        let peers = std::mem::take(&mut *self.shared.peers.write());
        for (id, peer) in peers {
            peer.stop();
            tracing::info!("removed-remote-peer-id" = %id, "removed remote peer");
        }
    }

    /// Makes a member reachable that is not known from the log yet; it is answered by posts until it is a peer.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] if there is no URL or one is none.
    pub fn add_remote(&self, id: MemberId, urls: &[String]) -> Result<(), Error> {
        add_remote(&self.shared, id, urls)
    }

    /// Tells since when a link to a peer works; `None` if none does.
    #[must_use]
    pub fn active_since(&self, id: MemberId) -> Option<Instant> {
        let peers = self.shared.peers.read();
        peers.get(&id).and_then(|peer| peer.link.active_since())
    }

    /// Counts the peers to which a link works.
    #[must_use]
    pub fn active_peers(&self) -> usize {
        let peers = self.shared.peers.read();
        let active = peers.values().filter(|p| p.link.active_since().is_some());
        active.count()
    }

    /// Copies the counters of all peers there were.
    #[must_use]
    pub fn metrics(&self) -> Vec<PeerMetrics> {
        let peers = self.shared.peers.read();
        self.shared.registry.read(|id| {
            let peer = peers.get(&id);
            peer.map_or_else(Standing::default, |peer| peer.standing())
        })
    }

    /// Drops all messages to and from a peer, as if the network did, until [`Transport::mend`].
    pub fn cut(&self, id: MemberId) {
        self.pause(id, true);
    }

    /// Ends [`Transport::cut`].
    pub fn mend(&self, id: MemberId) {
        self.pause(id, false);
    }

    fn pause(&self, id: MemberId, paused: bool) {
        if let Some(peer) = self.shared.peers.read().get(&id) {
            peer.link.pause(paused);
        }
        if let Some(remote) = self.shared.remotes.read().get(&id) {
            remote.link.pause(paused);
        }
    }

    /// Ends everything: no more connections, peers or requests. Streams get what waits on them first.
    pub fn stop(&self) {
        self.shared.stopped.send_replace(true);
        self.clear_peers();
        for (_, remote) in std::mem::take(&mut *self.shared.remotes.write()) {
            remote.stop();
        }
        self.shared.pool.clear();
    }

    fn client(&self) -> PeerClient {
        PeerClient::over(Arc::clone(&self.shared.pool))
    }

    /// As [`PeerClient::versions`].
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn versions_of(
        &self,
        urls: Vec<String>,
        timeout: Duration,
    ) -> Result<Versions, Error> {
        let client = self.client();
        let question = async move { client.versions(&urls, timeout).await };
        on_runtime(&self.shared.handle, question).await
    }

    /// As [`PeerClient::downgrade_enabled`].
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn downgrade_enabled_of(
        &self,
        urls: Vec<String>,
        timeout: Duration,
    ) -> Result<bool, Error> {
        let client = self.client();
        let question = async move { client.downgrade_enabled(&urls, timeout).await };
        on_runtime(&self.shared.handle, question).await
    }

    /// As [`PeerClient::hash_kv`], for this member's cluster.
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn hash_kv_of(
        &self,
        urls: Vec<String>,
        revision: i64,
        timeout: Duration,
    ) -> Result<HashKv, Error> {
        let client = self.client();
        let cluster = self.shared.identity.cluster_id;
        let question = async move { client.hash_kv(&urls, cluster, revision, timeout).await };
        on_runtime(&self.shared.handle, question).await
    }

    /// As [`PeerClient::promote`].
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, the learner may be promoted or not.
    pub async fn promote_on(
        &self,
        urls: Vec<String>,
        id: MemberId,
        token: Option<String>,
        timeout: Duration,
    ) -> Result<Vec<Member>, Error> {
        let client = self.client();
        let question = async move { client.promote(&urls, id, token.as_deref(), timeout).await };
        on_runtime(&self.shared.handle, question).await
    }

    /// As [`PeerClient::renew_lease`]. A leader of our own kind is asked in batches, on one connection; of etcd's, one
    /// lease a request.
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, the lease may be renewed or not.
    pub async fn renew_lease_on(
        &self,
        urls: Vec<String>,
        id: LeaseId,
        timeout: Duration,
    ) -> Result<i64, Error> {
        let (client, shared) = (self.client(), Arc::clone(&self.shared));
        let asking = async move {
            if let Some(peer) = kindred_at(&shared, &urls) {
                let renewed = peer.ask_of_lease(LeaseQuestion::Renew(id)).await?;
                return Ok(renewed.left);
            }
            let _permit = shared.asking.acquire().await;
            client.renew_lease(&urls, id, timeout).await
        };
        self.ask_for(timeout, asking).await
    }

    /// As [`PeerClient::time_to_live`]. A leader of our own kind is asked in batches, on one connection, if no keys are asked
    /// for; they may be many.
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Stopped`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn time_to_live_on(
        &self,
        urls: Vec<String>,
        id: LeaseId,
        keys: bool,
        timeout: Duration,
    ) -> Result<TimeToLive, Error> {
        let (client, shared) = (self.client(), Arc::clone(&self.shared));
        let asking = async move {
            if !keys && let Some(peer) = kindred_at(&shared, &urls) {
                let seconds = peer.ask_of_lease(LeaseQuestion::TimeToLive(id)).await?;
                return Ok(TimeToLive {
                    ttl_s: seconds.left,
                    granted_ttl_s: seconds.granted,
                    keys: Vec::new(),
                });
            }
            let _permit = shared.asking.acquire().await;
            client.time_to_live(&urls, id, keys, timeout).await
        };
        self.ask_for(timeout, asking).await
    }

    async fn ask_for<T: Send + 'static>(
        &self,
        timeout: Duration,
        asking: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let question = async move {
            let asked = tokio::time::timeout(timeout, asking).await;
            asked.unwrap_or(Err(Error::TimedOut("no answer about a lease")))
        };
        on_runtime(&self.shared.handle, question).await
    }

    /// Tells whether a peer is of our own kind, as its stream last said: then [`Transport::exchange`] reaches it.
    #[must_use]
    pub fn is_kindred(&self, id: MemberId) -> bool {
        let peers = self.shared.peers.read();
        peers.get(&id).is_some_and(|peer| peer.link.is_kindred())
    }

    /// Asks a peer of our own kind something, by topic (letters and digits), and returns its
    /// [`Service::exchange`]'s answer. Nothing is sent to peers of another kind. The request may arrive twice.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if there is no such peer, it is of another kind, or it refuses; those of the link.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, the request may have had its effect or not.
    pub async fn exchange(
        &self,
        id: MemberId,
        topic: &'static str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        let Some(peer) = self.shared.peers.read().get(&id).cloned() else {
            return Err(Refusal::MemberNotFound.into());
        };
        let shared = Arc::clone(&self.shared);
        let question = async move { exchange(&shared, &peer.link, topic, body, timeout).await };
        on_runtime(&self.shared.handle, question).await
    }
}

/// Returns a peer of our own kind that is reached at one of the URLs.
fn kindred_at(shared: &Shared, urls: &[String]) -> Option<Arc<Peer>> {
    let peers = shared.peers.read();
    let mut kindred = peers.values().filter(|peer| peer.link.is_kindred());
    let is_there = |peer: &&Arc<Peer>| {
        let known = peer.link.picker.all();
        known.iter().any(|known| urls.contains(&known.to_string()))
    };
    kindred.find(is_there).cloned()
}

/// Adds a remote, if there is room and it is neither a peer, nor this member, nor removed.
pub(crate) fn add_remote(shared: &Arc<Shared>, id: MemberId, urls: &[String]) -> Result<(), Error> {
    let parsed = PeerUrl::parse_all(urls)?;
    if id == shared.identity.member_id || id == MemberId(0) || shared.service.is_removed(id) {
        return Ok(());
    }
    let peers = shared.peers.read();
    let mut remotes = shared.remotes.write();
    let is_known = peers.contains_key(&id) || remotes.contains_key(&id);
    if is_known || remotes.len() >= REMOTES_MAX || shared.is_stopped() {
        return Ok(());
    }
    remotes.insert(id, Remote::start(shared, id, parsed));
    tracing::info!("remote-peer-id" = %id, "remote-peer-urls" = ?urls, "added new remote peer");
    Ok(())
}
