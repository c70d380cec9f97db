//! The door with plain values: what is said once, what again, and that it forgets what is over.

use super::*;
use crate::registry::Ended;
use crate::site::Location;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Moment {
    Moment::from_nanos((seconds + 1) * 1_000_000_000).expect("not zero")
}

/// A holder of its own group for each line.
fn at_line(id: u64, line: u32) -> Holder {
    Holder {
        id: HolderId(id),
        acquired_by: Some(Location::new("src/repo.rs", line, 1)),
        ..Holder::harmless()
    }
}

fn snapshot(holders: Vec<Holder>) -> Snapshot {
    Snapshot {
        holders,
        waiters: Vec::new(),
        pools: Vec::new(),
        totals: Vec::new(),
        closings: Vec::new(),
        dropped: 0,
    }
}

fn claim(id: u64, kind: Kind, milestone: u32) -> Claim {
    Claim {
        holder: HolderId(id),
        kind,
        milestone,
    }
}

/// Claims this of each holder, and tells what was said.
fn tell(door: &mut Door, holders: &[Holder], kind: Kind, milestone: u32, now: Moment) -> Shown {
    let claims: Vec<Claim> = holders
        .iter()
        .map(|holder| claim(holder.id.0, kind, milestone))
        .collect();
    door.claims(&claims, &snapshot(holders.to_vec()), INTERVAL, now)
}

fn ended(holder: HolderId, finding: FindingId) -> Ended {
    Ended {
        cut: None,
        finding: finding.0,
        holder,
        held_for: SECOND * 7,
    }
}

fn remembered(door: &Door) -> usize {
    door.told.len() + door.open.len() + door.spoke.len() + door.closings.len()
}

#[test]
fn what_is_over_is_forgotten() {
    let mut door = Door::new();
    for id in 0..100_000_u64 {
        // A minute each, so that every group may speak.
        let now = at(id * 60);
        let line = u32::try_from(id % 5_000).expect("small");
        let holders = [at_line(id, line)];
        let shown = tell(&mut door, &holders, Kind::HeldTooLong, 1, now);
        assert_eq!(shown.findings.len(), 1, "{id}");
        let back: Vec<Ended> = shown
            .claimed
            .iter()
            .map(|(holder, finding)| ended(*holder, *finding))
            .collect();
        assert_eq!(door.returned(back, &snapshot(Vec::new())).len(), 1);
        assert!(remembered(&door) <= Door::GROUPS + 20, "{id}");
    }
    assert!(door.told.is_empty());
    assert!(door.open.is_empty());
}

#[test]
fn what_is_still_out_is_remembered() {
    let mut door = Door::new();
    let holders: Vec<Holder> = (0..1000).map(|id| at_line(id, 1)).collect();
    let shown = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(0));
    assert_eq!(shown.findings.len(), 1, "one group");
    assert_eq!(shown.findings[0].count, 1000);
    assert_eq!(door.told.len(), 1000);
    let again = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(1000));
    assert!(again.findings.is_empty());
}

#[test]
fn more_than_twenty_groups_a_minute_become_a_count_that_is_said_once() {
    let mut door = Door::new();
    let holders: Vec<Holder> = (0..27).map(|id| at_line(id, id as u32)).collect();
    let shown = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(0));
    assert_eq!(shown.findings.len(), Door::A_MINUTE);
    assert_eq!(shown.next, Some(Minute::LENGTH), "then there is room again");
    // Not before those that become overdue together are known.
    let waits = door.limited(at(0));
    assert_eq!((waits.groups, waits.next), (None, Some(SECOND)));
    tell(&mut door, &holders, Kind::HeldTooLong, 1, at(1));
    assert_eq!(door.limited(at(1)).groups, Some(7));
    for second in 2..60 {
        tell(&mut door, &holders, Kind::HeldTooLong, 1, at(second));
        assert_eq!(door.limited(at(second)).groups, None, "{second}");
    }
    let shown = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(60));
    assert_eq!(shown.findings.len(), 7, "what was kept back is said");
    assert_eq!(door.limited(at(60)), Limited::default());
}

#[test]
fn twenty_groups_a_minute_are_all_said_and_no_count() {
    let mut door = Door::new();
    let holders: Vec<Holder> = (0..20).map(|id| at_line(id, id as u32)).collect();
    let shown = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(0));
    assert_eq!(shown.findings.len(), 20);
    assert_eq!(door.limited(at(30)), Limited::default());
}

#[test]
fn an_upgrade_is_silent_and_keeps_the_number() {
    let mut door = Door::new();
    let holders = [at_line(1, 1)];
    let first = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(0));
    let id = first.findings[0].id;
    for kind in [
        Kind::IdleInTransaction,
        Kind::OutlivedRequest,
        Kind::HeldTooLong,
    ] {
        let shown = tell(&mut door, &holders, kind, 1, at(100));
        assert!(shown.findings.is_empty(), "{kind}");
    }
    let known = door.verdict(HolderId(1));
    assert_eq!(known, Some((Kind::OutlivedRequest, id)));
    let back = door.returned(vec![ended(HolderId(1), id)], &snapshot(Vec::new()));
    assert_eq!((back[0].kind, back[0].id), (Kind::ReturnedLate, id));
}

#[test]
fn each_milestone_is_said_once_whatever_it_suffers_from() {
    let mut door = Door::new();
    let holders = [at_line(1, 1)];
    let mut say = |kind, milestone, second| {
        let shown = tell(&mut door, &holders, kind, milestone, at(second));
        shown.findings.first().map(|finding| finding.id.0)
    };
    let id = say(Kind::IdleInTransaction, 1, 0);
    assert!(id.is_some());
    assert_eq!(say(Kind::HeldTooLong, 1, 100), None, "says less");
    assert_eq!(
        say(Kind::HeldTooLong, 10, 200),
        id,
        "ten times, same number"
    );
    assert_eq!(say(Kind::HeldTooLong, 10, 300), None);
    assert_eq!(say(Kind::IdleInTransaction, 100, 400), id);
}

#[test]
fn a_group_keeps_quiet_for_the_interval_and_then_speaks_of_all() {
    let mut door = Door::new();
    let first = [at_line(1, 1)];
    assert_eq!(
        tell(&mut door, &first, Kind::HeldTooLong, 1, at(0))
            .findings
            .len(),
        1
    );
    let both = [at_line(1, 1), at_line(2, 1)];
    let shown = tell(&mut door, &both, Kind::HeldTooLong, 1, at(10));
    assert!(shown.findings.is_empty());
    assert_eq!(shown.next, Some(SECOND * 50));
    let shown = tell(&mut door, &both, Kind::HeldTooLong, 1, at(60));
    assert_eq!(shown.findings[0].count, 2);
}

#[test]
fn a_finding_is_closed_when_its_last_holder_is_back_and_only_then() {
    let mut door = Door::new();
    let holders: Vec<Holder> = (0..3).map(|id| at_line(id, 1)).collect();
    let shown = tell(&mut door, &holders, Kind::HeldTooLong, 1, at(0));
    let id = shown.findings[0].id;
    let nothing = snapshot(Vec::new());
    for holder in 0..2 {
        let back = door.returned(vec![ended(HolderId(holder), id)], &nothing);
        assert!(back.is_empty());
    }
    let back = door.returned(vec![ended(HolderId(2), id)], &nothing);
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].count, 3);
    let again = door.returned(vec![ended(HolderId(2), id)], &nothing);
    assert!(again.is_empty());
}
