//! Seeds that once failed, each in its full length of then.
use quorate_simulator::plan::Narrow;
use quorate_simulator::{Ended, Trace, run_seed};

fn is_clean(seed: u64, seconds: u64) {
    let length_ms = seconds * 1_000;
    let narrow = Narrow {
        length_ms: Some(length_ms),
        ..Narrow::default()
    };
    let report = run_seed(seed, &narrow, Trace::Off);
    assert_eq!(
        report.ended,
        Ended::Clean,
        "cargo xtask sim --seed {seed} --length-ms {length_ms}"
    );
    assert!(report.committed > 30, "seed {seed} does something");
}

/// Raft counted from timeouts that no seed repeats; the test of it is one of `core`'s.
#[test]
fn seed_231_draws_election_timeouts_from_its_seed() {
    is_clean(231, 60);
}

/// What nobody waited for any more was kept in the queue for the next leader.
#[test]
fn seed_424_proposes_nothing_whose_time_is_over() {
    is_clean(424, 60);
}

/// Who passed on a proposal of a removed member was told that it was removed itself.
#[test]
fn seed_376_ends_no_member_that_only_passed_something_on() {
    is_clean(376, 60);
}

/// A member that was removed before it had heard anything ran for ever, since it dialed nobody.
#[test]
fn seed_1001497_tells_a_new_member_that_it_was_removed() {
    is_clean(1_001_497, 30);
}

/// The simulator took more members away than a minority: one was damaged while a healthy one was removed, or left.
#[test]
fn seeds_478_513_and_1000173_leave_a_quorum() {
    is_clean(478, 20);
    is_clean(513, 15);
    is_clean(1_000_173, 30);
}

/// A removed member that was started again dialed nobody in the simulator.
#[test]
fn seed_1000017_tells_a_removed_member_that_starts_again() {
    is_clean(1_000_017, 60);
}

/// The check took a revocation for that of the lease that has the id now.
#[test]
fn seeds_1000176_and_1000313_hold_a_revocation_against_the_lease_that_it_was_meant_for() {
    is_clean(1_000_176, 20);
    is_clean(1_000_313, 20);
}

/// The check asked for the answer to the first of two copies of a proposal, which came with a snapshot.
#[test]
fn seed_1000315_is_answered_at_the_second_copy() {
    is_clean(1_000_315, 20);
}

/// The check took the deletion of a key that must come for an earlier one of the same revision that a compaction drops.
#[test]
fn seed_1020072_tells_events_of_a_compacted_revision_apart() {
    is_clean(1_020_072, 30);
}

/// A checkpoint of a lease that was replaced was held against the leader that gave the new one its whole time.
#[test]
fn seed_1020374_holds_a_checkpoint_against_the_lease_that_it_was_meant_for() {
    is_clean(1_020_374, 5);
}

/// A leader whose database could not be read, not even for the snapshot that the only other member needed, led on for ever.
#[test]
fn seed_1033504_ends_a_leader_that_cannot_read_the_state_of_a_snapshot() {
    is_clean(1_033_504, 15);
}

/// The check forgot the checkpoint that a leader was promoted with once that leader made one of its own.
#[test]
fn seeds_1021244_and_1022122_let_a_leader_go_by_the_checkpoint_of_its_promotion() {
    is_clean(1_021_244, 8);
    is_clean(1_022_122, 30);
}

/// A leader that woke up counted the ticks that it made up for as time awake, and renewed leases by itself in the term of another.
#[test]
fn seed_1001002_asks_others_before_it_renews_leases_after_a_sleep() {
    is_clean(1_001_002, 30);
}

/// An empty entry in the place of a change of members promoted the lessor again, and leases that had been renewed ended early. And a
/// member without a machine was waited for: it was given the address of one that had moved to another port meanwhile.
#[test]
fn seed_1060866_promotes_a_lessor_once_a_term_and_removes_who_never_starts() {
    is_clean(1_060_866, 30);
}

/// The check looked for watchers that were left over before the member had let go of those of a stream just closed.
#[test]
fn seed_1300450_rests_when_its_watches_do() {
    is_clean(1_300_450, 15);
}

/// The check expected a backup without any revision to be restored behind the 1 of an empty store.
#[test]
fn seed_1302402_counts_a_restored_store_without_revisions_from_zero() {
    is_clean(1_302_402, 20);
}

/// A database that gives nothing more after a failed read was looked into before a flush ended its member.
#[test]
fn seed_1060241_waits_until_a_member_can_be_read() {
    is_clean(1_060_241, 30);
}

/// Watchers of streams that were closed a moment ago were taken for left over.
#[test]
fn seed_1062349_waits_until_closed_streams_are_gone() {
    is_clean(1_062_349, 10);
}

/// What a member that was asked to stop was writing when power was lost was taken for not begun.
#[test]
fn seed_1063211_loses_power_while_it_stops() {
    is_clean(1_063_211, 30);
}

/// Proposals whose callers had gone away were counted as pending for ever.
#[test]
fn seed_1063909_counts_no_proposals_that_nobody_waits_for() {
    is_clean(1_063_909, 8);
}

/// Each attempt to make a database on a full disk left a file behind.
#[test]
fn seed_208_leaves_no_beginning_of_a_database() {
    is_clean(208, 5);
}

/// Snapshot files that two power losses beside removals had left were taken for a leak before the next one was saved.
#[test]
fn seed_601967_keeps_old_snapshot_files_until_the_next_is_saved() {
    is_clean(601_967, 30);
}

/// The power that was lost inside a client's read on a member that stood still was given back at the end of the faults, and the
/// member ran on with a database that could not be read any more.
#[test]
fn seed_1700685_ends_who_lost_power_before_the_faults_end() {
    is_clean(1_700_685, 8);
}

/// A member was started as one of an older version while that downgrade was canceled, and ended, as it must: the simulator took
/// that for a failure.
#[test]
fn seed_1700345_starts_the_newer_version_again() {
    is_clean(1_700_345, 10);
}

/// A member that was removed before it had joined waited for ever: it knows nobody who could tell it.
#[test]
fn seed_1002041_lets_a_member_go_that_was_removed_before_it_joined() {
    is_clean(1_002_041, 15);
}

/// The check took the end of a lease for that of the next one with its id.
#[test]
fn seed_1002177_lets_the_end_of_a_lease_meet_the_next_one_with_its_id() {
    is_clean(1_002_177, 15);
}

/// The check expected a downgrade that failed to be cancelled to be refused.
#[test]
fn seed_1002079_answers_the_cancelling_of_a_downgrade_well() {
    is_clean(1_002_079, 15);
}

/// The check kept what a log held behind a snapshot that it disagreed with.
#[test]
fn seed_23237_replaces_a_log_that_disagrees_with_a_snapshot_whole() {
    is_clean(23_237, 15);
}

/// A renewal was answered while a checkpoint from before it was on its way: the next leader ended the lease early.
#[test]
fn seed_1061975_renews_no_lease_ahead_of_its_checkpoint() {
    is_clean(1_061_975, 15);
}

/// The check took a segment for left over that a deposed leader had filled with what others took the place of.
#[test]
fn seeds_214_and_1000065_keep_segments_that_hold_what_was_replaced() {
    is_clean(214, 30);
    is_clean(1_000_065, 10);
}

/// The check knew nothing of a checkpoint that was meant for an earlier lease with the id, and said more than the present one was
/// granted.
#[test]
fn seed_1000690_lets_a_checkpoint_say_more_than_was_granted() {
    is_clean(1_000_690, 30);
}

/// A member that ended at once when it started showed more applied than committed.
#[test]
fn seed_2102388_shows_where_a_member_is_that_ends_at_once() {
    is_clean(2_102_388, 10);
}

/// A client asked to wait for the end of a compaction, of which many stood in line, and gave up. The check expected an answer.
#[test]
fn seed_3101177_compacts_longer_than_its_client_waits() {
    is_clean(3_101_177, 40);
}

/// The image of a snapshot was stored with a wrong bit and installed: nothing looked at its bytes again.
#[test]
fn seed_3209350_does_not_install_an_image_with_a_wrong_bit() {
    is_clean(3_209_350, 30);
}

/// Another, found by a backup.
#[test]
fn seed_3316376_does_not_install_an_image_with_a_wrong_bit() {
    is_clean(3_316_376, 30);
}

/// A member that stood still was to stand still again, for less long, and did not: the check thought it was awake.
#[test]
fn seed_3212910_stands_still_twice() {
    is_clean(3_212_910, 40);
}

/// A lease past its end was renewed in a corrupt cluster, in which nothing is revoked. The check expected an answer.
#[test]
fn seed_3316421_renews_too_late_in_a_corrupt_cluster() {
    is_clean(3_316_421, 40);
}

/// A lease past its end was not revoked for long, since clients took all the little room that raft had. The check expected an answer
/// to its renewal. So it did in seed 3716737, where the log was seconds ahead of what was applied.
#[test]
fn seed_3704808_has_no_room_for_revocations() {
    is_clean(3_704_808, 40);
}

/// So many leases were left at the end that a leader which lets few of them end in a second was not done in time.
#[test]
fn seed_3716889_lets_few_leases_end_in_a_second() {
    is_clean(3_716_889, 60);
}
