//! In which form a follower is sent what the log no longer holds.

use quorate_integration_tests::Binary;
use quorate_integration_tests::cluster::{Cluster, Place, Setup};

use crate::cluster::one_at_a_time;
use crate::membership::{eventually, follower};
use crate::operators::{SMALL_LOG, fill, wait_for_line};

/// More than [`SMALL_LOG`] keeps.
const MISSED: usize = 300;

/// Has a member miss more than the log keeps while another leads, and waits until it was caught up.
fn catch_up(cluster: &mut Cluster, leader: Place, behind: Place) {
    // On a busy machine a member may not be ready to take the lead at once.
    eventually("the lead of a member", || {
        let leads = cluster.wait_leader()?;
        if leads != leader {
            cluster.move_leader(leads, leader)?;
        }
        Ok(())
    });
    cluster.kill(behind).unwrap();
    fill(cluster, leader, MISSED);
    assert_eq!(cluster.wait_leader().unwrap(), leader);
    cluster.begin_start(behind).unwrap();
    cluster.end_start(behind).unwrap();
    cluster.converge().unwrap();
}

fn says_sent(cluster: &Cluster, leader: Place, behind: Place, form: &str) {
    let (form, to) = (
        format!("\"form\":\"{form}\""),
        format!("{:x}", cluster.id(behind)),
    );
    for message in [
        "\"sending database snapshot\"",
        "\"sent database snapshot\"",
    ] {
        wait_for_line(cluster, leader, &[message, &to, &form]);
    }
}

fn says_received(cluster: &Cluster, behind: Place, form: &str) {
    let form = format!("\"form\":\"{form}\"");
    for message in [
        "\"received and saved database snapshot\"",
        "\"applying snapshot\"",
    ] {
        wait_for_line(cluster, behind, &[message, &form]);
    }
}

#[test]
fn rows_travel_between_members_of_our_own() {
    let _turn = one_at_a_time();
    let setup = Setup::three(vec![Binary::quorate().unwrap()], &SMALL_LOG);
    let mut cluster = Cluster::start(&setup).unwrap();
    let (leader, behind) = follower(&cluster);
    catch_up(&mut cluster, leader, behind);
    says_sent(&cluster, leader, behind, "rows");
    says_received(&cluster, behind, "rows");
}

#[test]
fn images_travel_to_and_from_members_of_etcd() {
    let Some(etcd) = Binary::reference().unwrap() else {
        println!("skipped: QUORATE_REFERENCE_ETCD is not set");
        return;
    };
    let _turn = one_at_a_time();
    let binaries = vec![etcd.clone(), etcd, Binary::quorate().unwrap()];
    let mut cluster = Cluster::start(&Setup::three(binaries, &SMALL_LOG)).unwrap();
    let [theirs, other, ours] = [0, 1, 2];
    catch_up(&mut cluster, theirs, ours);
    says_received(&cluster, ours, "image");
    catch_up(&mut cluster, ours, other);
    says_sent(&cluster, ours, other, "image");
    wait_for_line(&cluster, other, &["\"applied snapshot\""]);
}
