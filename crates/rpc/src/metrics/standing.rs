//! Metrics of etcd that have nothing to count here, so that whoever asks for them by name finds them.
//!
//! Each gives way to a source that has something to say.
//!
//! | metrics | why they stand still |
//! |---|---|
//! | `etcd_debugging_store_*` | the membership store of version 2, long gone from etcd too |
//! | `etcd_grpc_proxy_*` | they count in the proxy, which in etcd is the same binary |
//! | `etcd_debugging_disk_backend_commit_rebalance_*`, `_spill_*` | steps of bbolt's commit that redb's has not |
//! | `etcd_debugging_snap_save_marshalling_*` | a snapshot of the log comes encoded from the member |
//! | `etcd_mvcc_db_open_read_transactions` | no read keeps a transaction of the database between two of its steps |
//! | `go_gc_*`, `go_memstats_gc_*`, `_mcache_*`, `_mspan_*`, `_buck_hash_*`, `_next_gc_*`, `_last_gc_*` | nothing collects garbage |
//! | `go_memstats_mallocs_total`, `_frees_total`, `_heap_objects`, `_alloc_bytes_total` | the allocator does not count calls |
use super::Text;
use super::histogram::HistogramSnapshot;

/// Metrics whose one sample is 0.
const ZEROS: &[&str] = &[
    "etcd_debugging_store_expires_total",
    "etcd_debugging_store_watch_requests_total",
    "etcd_debugging_store_watchers",
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_events_coalescing_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
    "etcd_mvcc_db_open_read_transactions",
    "go_gc_gogc_percent",
    "go_memstats_alloc_bytes_total",
    "go_memstats_buck_hash_sys_bytes",
    "go_memstats_frees_total",
    "go_memstats_gc_sys_bytes",
    "go_memstats_heap_objects",
    "go_memstats_last_gc_time_seconds",
    "go_memstats_mallocs_total",
    "go_memstats_mcache_inuse_bytes",
    "go_memstats_mcache_sys_bytes",
    "go_memstats_mspan_inuse_bytes",
    "go_memstats_mspan_sys_bytes",
    "go_memstats_next_gc_bytes",
    "go_memstats_other_sys_bytes",
];

/// Histograms without observations: the first bound, and how many there are, each twice the one before.
const EMPTY: &[(&str, f64, usize)] = &[
    (
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        0.001,
        14,
    ),
    (
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        0.001,
        14,
    ),
];

/// Writes them all.
pub(super) fn write(text: &mut Text) {
    for name in ZEROS {
        text.standing(name).sample(&[], 0);
    }
    for (name, first, count) in EMPTY {
        text.standing(name)
            .histogram(&[], &HistogramSnapshot::empty(*first, 2.0, *count));
    }
    text.standing("go_gc_duration_seconds");
    for quantile in ["0", "0.25", "0.5", "0.75", "1"] {
        text.sample(&[("quantile", quantile)], 0);
    }
    text.summary_end(0.0, 0);
}
