//! Clients nobody here wrote, against memcached: that the driver of these clients is right, before it
//! is turned on a node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nautilus_tests::clients;
use nautilus_tests::lab::{self, Bridge, Folder, Lab, NetNs, Process, RunId};
use nautilus_tests::memcached::Client;
use nautilus_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(10);
const PORT: u16 = 11211;

#[test]
#[ignore = "privileged: makes network namespaces"]
fn the_clients_work_with_memcached() {
    let test = "the_clients_work_with_memcached";
    let program = Path::new("/usr/bin/memcached");
    if !program.exists() {
        println!("SKIPPED {test}: memcached is not installed");
        return;
    }
    let run = RunId::draw();
    let folder = Folder::create(run).unwrap();
    let bridge = Bridge::create(run).unwrap();
    let server = Arc::new(NetNs::create(run, "server").unwrap());
    let client = Arc::new(NetNs::create(run, "client").unwrap());
    let _server_link = bridge.join(&server, "server", lab::node(1)).unwrap();
    let _client_link = bridge.join(&client, "client", lab::CLIENT).unwrap();
    let words = "-u nobody -U 11211 -p 11211 -t 1".split(' ');
    let _memcached =
        Process::start(run, &server, program, words, &folder.join("memcached.log")).unwrap();
    let address = lab::node(1).v4();
    let mut own =
        client.run(|| Client::connect((address, PORT).into(), Duration::from_millis(500))).unwrap();
    wait_until("memcached answers", SOON, || own.get("absent").is_ok()).unwrap();
    clients::run_all(test, &client, &folder, address, PORT);
}

#[test]
#[ignore = "privileged: makes network namespaces and a node"]
fn the_clients_work_with_a_node() {
    let run = RunId::draw();
    let folder = Arc::new(Folder::create(run).unwrap());
    let lab = Lab::start(Arc::clone(&folder), run, 1, |_, _, _| Ok(())).unwrap();
    let address = lab.nodes()[0].member.address.v4();
    let test = "the_clients_work_with_a_node";
    clients::run_all(test, &lab.client().namespace, &folder, address, PORT);
}
