//! What a node says of itself, read the way an operator's monitoring does: over HTTP, in the
//! Prometheus text format.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The body of `GET path`; an error for anything but 200. Runs in the calling thread's namespace.
pub fn get(server: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("no HTTP answer: {answer:?}")))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("{path}: {status}: {body}")));
    }
    Ok(body.to_owned())
}

/// The samples of one scrape, by `name{labels}` as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads the Prometheus text format; lines that are neither comments nor samples are errors.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| line.to_owned())?;
            let value = value.parse().map_err(|_| line.to_owned())?;
            if samples.insert(series.to_owned(), value).is_some() {
                return Err(format!("twice: {series}"));
            }
        }
        Ok(Self(samples))
    }

    /// The sum of all series of `name` whose labels hold each of `labels` (`key="value"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name)
            .filter(|(rest, _)| labels.iter().all(|label| rest.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Every series of `name`: (labels with braces, value).
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(series, &value)| {
            let rest = series.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('{')).then_some((rest, value))
        })
    }

    /// This scrape less an earlier one; series that were not there before count from 0.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(series, value): (&String, &f64)| {
            (series.clone(), value - earlier.0.get(series).copied().unwrap_or(0.0))
        };
        Self(self.0.iter().map(difference).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_their_labels() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{node=\"1\",reason=\"x\"} 3\n\
                    a_total{node=\"2\",reason=\"x\"} 4\na_total_more 9\nb 1e3\n";
        let samples = Samples::parse(text).unwrap();
        assert_eq!(samples.sum("a_total", &[]), 7.0);
        assert_eq!(samples.sum("a_total", &["node=\"2\""]), 4.0);
        assert_eq!(samples.sum("b", &[]), 1000.0);
        assert_eq!(samples.since(&Samples::default()), samples);
        assert_eq!(samples.since(&samples).sum("a_total", &[]), 0.0);
        assert!(Samples::parse("a 1\na 2\n").is_err());
    }
}
