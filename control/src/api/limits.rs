//! What one control takes at a time, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::problem::Problem;

/// Longest body, unless a route says otherwise. Too low: a deployment of 256 nodes does not fit (100
/// kB); too high: that much memory for everyone who may send one.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Requests answered at a time. Too low: dashboards turn each other away; too high: a crowd takes the
/// memory and the threads that the others need.
pub const REQUESTS_MAX: usize = 256;

/// How long an answer may take, the sending of the body included. Too low: a slow disk; too high: who
/// sends a byte a second holds a place for long.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);

/// When to come again.
const RETRY_AFTER_S: u32 = 1;

/// Places for requests, and how long one may be held.
#[derive(Clone)]
pub struct Limits {
    places: Arc<Semaphore>,
    answer_max: Duration,
}

impl Limits {
    /// So many places, all of them free.
    pub fn of(requests_max: usize, answer_max: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(requests_max)), answer_max }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(REQUESTS_MAX, ANSWER_MAX)
    }
}

/// Turns away what is too much and gives up what takes too long. A probe of the process is neither.
pub async fn limit(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/livez" {
        return next.run(request).await;
    }
    let Ok(_place) = limits.places.try_acquire() else {
        let detail = "as many requests are being answered as may be";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail)
            .retry_after(RETRY_AFTER_S)
            .into_response();
    };
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    match tokio::time::timeout(limits.answer_max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let (name, title) = match looks {
                true => ("timed-out", "Timed out"),
                false => ("outcome-unknown", "Outcome unknown"),
            };
            let detail = format!("no answer came within {} s", limits.answer_max.as_secs_f64());
            Problem::new(StatusCode::GATEWAY_TIMEOUT, name, title, detail)
                .retry_after(RETRY_AFTER_S)
                .into_response()
        }
    }
}
