//! What operators see of the links to other members, under etcd's names.
//!
//! Source: etcd v3.7.1 server/etcdserver/api/rafthttp/metrics.go.
use quorate_proto::MemberId;
use quorate_rpc::{HistogramSnapshot, MetricKind, Text};
use quorate_transport::{Histogram, PeerMetrics, Transport};

/// A metric with one number a peer.
struct Number {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    /// The label that names the peer.
    label: &'static str,
    of: fn(&PeerMetrics) -> u64,
}

/// A metric with one histogram a peer.
struct Times {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    of: fn(&PeerMetrics) -> &Histogram,
}

#[rustfmt::skip]
const NUMBERS: [Number; 10] = [
    number("etcd_network_peer_sent_bytes_total", MetricKind::Counter, "The total number of bytes sent to peers.", "To", |p| p.sent_bytes),
    number("etcd_network_peer_received_bytes_total", MetricKind::Counter, "The total number of bytes received from peers.", "From", |p| p.received_bytes),
    number("etcd_network_peer_sent_failures_total", MetricKind::Counter, "The total number of send failures from peers.", "To", |p| p.sent_failures),
    number("etcd_network_peer_received_failures_total", MetricKind::Counter, "The total number of receive failures from peers.", "From", |p| p.received_failures),
    number("etcd_network_snapshot_send_success", MetricKind::Counter, "Total number of successful snapshot sends", "To", |p| p.snapshots_sent),
    number("etcd_network_snapshot_send_failures", MetricKind::Counter, "Total number of snapshot send failures", "To", |p| p.snapshot_send_failures),
    number("etcd_network_snapshot_send_inflights_total", MetricKind::Gauge, "Total number of inflight snapshot sends", "To", |p| p.snapshots_being_sent),
    number("etcd_network_snapshot_receive_success", MetricKind::Counter, "Total number of successful snapshot receives", "From", |p| p.snapshots_received),
    number("etcd_network_snapshot_receive_failures", MetricKind::Counter, "Total number of snapshot receive failures", "From", |p| p.snapshot_receive_failures),
    number("etcd_network_snapshot_receive_inflights_total", MetricKind::Gauge, "Total number of inflight snapshot receives", "From", |p| p.snapshots_being_received),
];

#[rustfmt::skip]
const TIMES: [Times; 3] = [
    Times { name: "etcd_network_peer_round_trip_time_seconds", help: "Round-Trip-Time histogram between peers", label: "To", of: |p| &p.round_trip_time },
    Times { name: "etcd_network_snapshot_send_total_duration_seconds", help: "Total latency distributions of v3 snapshot sends", label: "To", of: |p| &p.snapshot_send_time },
    Times { name: "etcd_network_snapshot_receive_total_duration_seconds", help: "Total latency distributions of v3 snapshot receives", label: "From", of: |p| &p.snapshot_receive_time },
];

const fn number(
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    label: &'static str,
    of: fn(&PeerMetrics) -> u64,
) -> Number {
    Number {
        name,
        kind,
        help,
        label,
        of,
    }
}

/// Makes the source of the metrics of all peers there were. Like etcd's, a metric is shown once there is something to show.
pub(crate) fn source(transport: Transport, own: MemberId) -> impl Fn(&mut Text) + Send + Sync {
    move |text| render(&transport.metrics(), own, text)
}

fn render(peers: &[PeerMetrics], own: MemberId, text: &mut Text) {
    // Senders that are not known are worth a line only once there was one.
    let is_shown = |p: &&PeerMetrics| p.id.0 != 0 || p.received_bytes > 0;
    let peers: Vec<&PeerMetrics> = peers.iter().filter(is_shown).collect();
    if peers.is_empty() {
        return;
    }
    let own = own.to_string();
    let standing = |text: &mut Text, name, kind, help, of: fn(&PeerMetrics) -> u64| {
        text.metric(name, kind, help);
        for peer in peers.iter().filter(|p| p.known) {
            let labels = [("Local", &own[..]), ("Remote", &peer.id.to_string())];
            text.sample(&labels, of(peer));
        }
    };
    standing(
        text,
        "etcd_network_active_peers",
        MetricKind::Gauge,
        "The current number of active peer connections.",
        |p| u64::from(p.active),
    );
    standing(
        text,
        "etcd_network_disconnected_peers_total",
        MetricKind::Counter,
        "The total number of disconnected peers.",
        |p| p.disconnected,
    );
    for metric in &NUMBERS {
        text.metric(metric.name, metric.kind, metric.help);
        for peer in &peers {
            let id = peer.id.to_string();
            text.sample(&[(metric.label, &id)], (metric.of)(peer));
        }
    }
    for metric in &TIMES {
        let shown = peers.iter().filter(|p| (metric.of)(p).count > 0);
        text.metric(metric.name, MetricKind::Histogram, metric.help);
        for peer in shown {
            let id = peer.id.to_string();
            text.histogram(&[(metric.label, &id)], &snapshot((metric.of)(peer)));
        }
    }
}

fn snapshot(histogram: &Histogram) -> HistogramSnapshot {
    let (bounds, counts) = histogram.buckets.iter().copied().unzip();
    HistogramSnapshot {
        bounds,
        counts,
        sum: histogram.sum_s,
        count: histogram.count,
    }
}
