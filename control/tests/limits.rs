//! What one control takes at a time, and for how long.

#[path = "support/ask.rs"]
mod ask;
#[path = "support/site.rs"]
mod site;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ask::Ask;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use nautilus_control::api::limits::{Limits, REQUESTS_MAX, limit};
use site::{Site, until};

#[test]
fn a_crowd_is_turned_away_and_leaves_no_mark() {
    let site = Site::start("");
    let socket = Ask::of(&site);
    let path = site.folder.path().join("control.sock");
    // Each holds a place with a body that does not come.
    let held: Vec<UnixStream> = (0..REQUESTS_MAX)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            let head = "POST /api/v1/edge/renew HTTP/1.1\r\nHost: x\r\n\
                        Content-Type: application/json\r\nContent-Length: 9\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let refused = until("no place", || {
        let answer = socket.whole("GET", "/api/v1/edge/version", &[], b"");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.json()["type"], "urn:nautilus:problem:overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(socket.get("/livez").0, 200, "the process is alive all the same");
    drop(held);
    until("places", || (socket.get("/api/v1/edge/version").0 == 200).then_some(()));
}

/// An answer of a server with these limits, whose answers take a minute.
fn slow(method: &str) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let late = async || tokio::time::sleep(Duration::from_secs(60)).await;
            let limits = Limits::of(1, Duration::from_millis(200));
            let router = Router::new().route("/", get(late)).route("/change", post(late));
            let router = router.layer(from_fn_with_state(limits, limit));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    let mut stream = TcpStream::connect(receiver.recv().unwrap()).unwrap();
    let path = if method == "GET" { "/" } else { "/change" };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_takes_too_long_is_given_up_and_said() {
    for (method, name) in [("GET", "timed-out"), ("POST", "outcome-unknown")] {
        let answer = slow(method);
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        assert!(answer.contains(&format!("urn:nautilus:problem:{name}")), "{answer}");
        assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
    }
}
