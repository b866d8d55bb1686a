//! Asks a peer for its time, to know how far it is and how wrong its clock.
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::pool::Call;
use crate::Error;
use crate::config::ANSWER_TIMEOUT;
use crate::json;
use crate::link::Link;
use crate::shared::Shared;

/// Longest answer to a probe.
const ANSWER_BYTES_MAX: usize = 4096;

/// A clock that is further off is complained about.
///
/// Source: etcd v3.7.1 server/etcdserver/api/rafthttp/probing_status.go `monitorProbingStatus`.
const CLOCK_DIFFERENCE_NS_MAX: u64 = 1_000_000_000;

/// Probes between two complaints about the same peer.
const QUIET_PROBES: u32 = 8;

/// Probes a peer until the task is ended.
///
/// # Cancel safety
///
/// Cancel safe.
pub(crate) async fn run_probe(shared: Arc<Shared>, link: Arc<Link>) {
    let mut turn = 0_u32;
    let mut quiet = 0_u32;
    loop {
        tokio::time::sleep(shared.config.probe_interval).await;
        quiet = quiet.saturating_sub(1);
        let urls = link.picker.all();
        let url = &urls[turn as usize % urls.len()];
        let probed = probe(&shared, url).await;
        link.counters.probe_ended(probed.as_ref().ok().copied());
        match probed {
            Ok((rtt, difference_ns)) if difference_ns.unsigned_abs() > CLOCK_DIFFERENCE_NS_MAX => {
                if quiet == 0 {
                    tracing::warn!(
                        "remote-peer-id" = %link.id,
                        "clock-drift-ns" = difference_ns,
                        rtt = ?rtt,
                        "prober found high clock drift"
                    );
                    quiet = QUIET_PROBES;
                }
            }
            Ok(_) => {}
            Err(error) => {
                turn = turn.wrapping_add(1);
                if quiet == 0 {
                    tracing::warn!(
                        "remote-peer-id" = %link.id,
                        error = %error,
                        "prober detected unhealthy status"
                    );
                    quiet = QUIET_PROBES;
                }
            }
        }
    }
}

/// Returns the round trip and how far the peer's clock is ahead.
async fn probe(
    shared: &Shared,
    url: &crate::url::PeerUrl,
) -> Result<(std::time::Duration, i64), Error> {
    let call = Call {
        method: Method::GET,
        path: "/raft/probing".to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        repeatable: true,
        time_max: ANSWER_TIMEOUT,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let began = Instant::now();
    let reply = shared.pool.call(url, &call).await?;
    let round_trip = began.elapsed();
    if reply.status != StatusCode::OK {
        return Err(reply.unexpected());
    }
    let theirs = json::parse_probe(&reply.body).ok_or(Error::Malformed("answer to a probe"))?;
    let half = i64::try_from(round_trip.as_nanos() / 2).unwrap_or(i64::MAX);
    let ours = now_ns().saturating_sub(half);
    Ok((round_trip, theirs.saturating_sub(ours)))
}

/// Returns the wall clock's nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}
