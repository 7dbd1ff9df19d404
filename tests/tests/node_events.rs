//! What happens to a node while clients read: links that go and come back, a control process that is
//! killed. The gap the clients saw is printed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nautilus_tests::lab::node_file::CACHE_PORT;
use nautilus_tests::lab::{End, Folder, Lab, RunId, active_worker, attach};
use nautilus_tests::load::{self, Plan, Report};
use nautilus_tests::memcached::Client;
use nautilus_tests::repository::long_shows;
use nautilus_tests::values;
use nautilus_tests::wait::wait_until;

/// How long a node may take to serve again after its link is back.
const RESUME_MAX: Duration = Duration::from_secs(20);
const KEYS: usize = 50;

fn lab() -> Lab {
    let run = RunId::draw();
    let folder = Arc::new(Folder::create(run).unwrap());
    Lab::start(folder, run, 1, |_, _, _| Ok(())).unwrap()
}

fn cache(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.nodes()[0].member.address.v4().into(), CACHE_PORT)
}

fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("own:{number}")).collect()
}

fn write_keys(lab: &Lab) {
    let mut client =
        lab.client().namespace.run(|| Client::connect(cache(lab), Duration::from_secs(2))).unwrap();
    for key in keys() {
        client.set(&key, 0, &values::value(&key, 0)).unwrap();
    }
}

fn answers(lab: &Lab) -> bool {
    let connect = || Client::connect(cache(lab), Duration::from_millis(100));
    let mut client = lab.client().namespace.run(connect).unwrap();
    client.get("own:0").is_ok_and(|found| found.is_some())
}

/// Reads 1,000 times a second while `happen` runs; every value must be the one that was written.
fn read_during<T: Send>(lab: &Lab, happen: impl FnOnce() -> T + Send) -> (Report, T) {
    let plan = Plan {
        server: cache(lab),
        keys: keys(),
        rate_per_second: 1000,
        duration: Duration::from_secs(600),
    };
    let stop = AtomicBool::new(false);
    let (report, happened) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            lab.client().namespace.run(|| {
                load::read(&plan, &stop, |key, found| {
                    found.is_some_and(|found| values::version_of(key, &found.bytes) == Some(0))
                })
            })
        });
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(happen));
        std::thread::sleep(Duration::from_millis(500));
        // Before a panic leaves the scope, which waits for the reader.
        stop.store(true, Ordering::Relaxed);
        (reader.join().unwrap().unwrap(), happened)
    });
    let happened = happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(report.wrong, 0, "{:?}", report.first_wrong);
    (report, happened)
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn a_link_that_goes_down_and_up_costs_no_more_than_its_absence() {
    let lab = lab();
    write_keys(&lab);
    let down = Duration::from_secs(1);
    for end in [End::First, End::Second] {
        let before = active_worker(&attach(&lab.nodes()[0].run_dir).unwrap()).unwrap();
        let (report, ()) = read_during(&lab, || {
            std::thread::sleep(Duration::from_millis(300));
            let link = lab.nodes()[0].member.link();
            link.set_up(end, false).unwrap();
            std::thread::sleep(down);
            link.set_up(end, true).unwrap();
            // A link set down forgets its IPv6 address; the other family is asked.
            wait_until("the node answers again", RESUME_MAX, || answers(&lab)).unwrap();
        });
        println!("{end:?} end down for {down:?}: gap {:?}, {} lost", report.gap, report.lost());
        // Not by the gap: a reader that had to wait for a core stamps its last answer late.
        assert!(report.lost() > 0, "the link was down");
        let after = active_worker(&attach(&lab.nodes()[0].run_dir).unwrap()).unwrap();
        assert_eq!(after.pid, before.pid, "no worker died of it");
    }
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn an_interface_made_anew_is_served_again() {
    let mut lab = lab();
    write_keys(&lab);
    assert!(answers(&lab));
    let pause = Duration::from_millis(500);
    let gone = std::time::Instant::now();
    lab.recreate_link(1, pause).unwrap();
    wait_until("the node answers again", RESUME_MAX, || answers(&lab)).unwrap();
    println!("interface gone for {pause:?}: gap {:?}", gone.elapsed());
    // The values outlive the interface, and so does everything else.
    let (report, ()) = read_during(&lab, || std::thread::sleep(Duration::from_secs(1)));
    assert_eq!(report.lost(), 0);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn nobody_notices_that_control_is_dead() {
    let mut lab = lab();
    write_keys(&lab);
    lab.start_control().unwrap();
    wait_until("control answers", RESUME_MAX, || lab.metrics().is_ok()).unwrap();
    let dead = Duration::from_secs(if long_shows() { 60 } else { 6 });
    let (alive, ()) = read_during(&lab, || std::thread::sleep(Duration::from_secs(3)));
    lab.kill_control();
    assert!(lab.metrics().is_err(), "control is dead");
    let (report, ()) = read_during(&lab, || std::thread::sleep(dead));
    println!(
        "control dead for {dead:?}: {} answered, {} lost, gap {:?} (alive: {:?})",
        report.answered,
        report.lost(),
        report.gap,
        alive.gap
    );
    assert_eq!(report.lost(), 0);
    lab.start_control().unwrap();
    wait_until("control answers again", RESUME_MAX, || lab.metrics().is_ok()).unwrap();
}
