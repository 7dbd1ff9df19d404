//! The checker against histories that others recorded and judged: etcd's (52, one register with
//! compare-and-swap), a key-value store's, and Knossos' own.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use nautilus_tests::history::{CONFIGURATIONS_MAX, Model, Timed, Verdict, search};
use nautilus_tests::repository;

/// One line of such a history.
#[derive(Debug)]
struct Event {
    process: u64,
    kind: String,
    function: String,
    key: String,
    value: String,
}

/// A register that starts as `nil`; values are the files' own words.
struct Register;

#[derive(Clone, Debug)]
enum Access {
    Read(String),
    Write(String),
    /// From, to, and whether it did; `None`: not known.
    Swap(String, String, Option<bool>),
}

impl Model for Register {
    type State = String;
    type Operation = Access;

    fn initial(&self) -> String {
        "nil".into()
    }

    fn step(&self, state: &String, operation: &Access) -> Option<String> {
        match operation {
            Access::Read(value) => (value == state).then(|| state.clone()),
            Access::Write(value) => Some(value.clone()),
            Access::Swap(from, to, did) => match (from == state, did) {
                (true, None | Some(true)) => Some(to.clone()),
                (false, Some(false)) => Some(state.clone()),
                _ => None,
            },
        }
    }

    fn observes(&self, operation: &Access) -> bool {
        matches!(operation, Access::Read(_) | Access::Swap(_, _, Some(false)))
    }
}

/// A text that starts empty and grows.
struct Text;

#[derive(Clone, Debug)]
enum Edit {
    Get(String),
    Put(String),
    Append(String),
}

impl Model for Text {
    type State = String;
    type Operation = Edit;

    fn initial(&self) -> String {
        String::new()
    }

    fn step(&self, state: &String, operation: &Edit) -> Option<String> {
        match operation {
            Edit::Get(value) => (value == state).then(|| state.clone()),
            Edit::Put(value) => Some(value.clone()),
            Edit::Append(value) => Some(format!("{state}{value}")),
        }
    }

    fn observes(&self, operation: &Edit) -> bool {
        matches!(operation, Edit::Get(_))
    }
}

/// The maps of an EDN file, without its comments.
fn edn(text: &str) -> Vec<Event> {
    let code: String =
        text.lines().map(|line| line.split(';').next().unwrap_or(line).to_owned() + "\n").collect();
    let maps = code.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let maps = maps.map(|map| {
        let field = |name: &str| {
            let rest = map.split(&format!(":{name} ")).nth(1).unwrap_or("").trim_start();
            let end = match rest.chars().next() {
                Some('"') => rest[1..].find('"').map(|at| at + 2),
                Some('[') => rest.find(']').map(|at| at + 1),
                _ => rest.find([',', ' ', '\n']),
            };
            rest[..end.unwrap_or(rest.len())].trim_matches(['"', ':']).to_owned()
        };
        let process = field("process").parse().ok()?;
        let (kind, function) = (field("type"), field("f"));
        Some(Event { process, kind, function, key: field("key"), value: field("value") })
    });
    maps.flatten().collect()
}

/// One event a line: `INFO  jepsen.util - 0 :invoke :read nil`, the fields apart by tabs.
fn jepsen_log(text: &str) -> Vec<Event> {
    let events = text.lines().filter_map(|line| {
        let mut fields = line.split_once(" - ")?.1.split('\t').map(str::trim);
        let mut field = || Some(fields.next()?.trim_start_matches(':').to_owned());
        let process = field()?.parse().ok()?;
        let (kind, function, value) = (field()?, field()?, field()?);
        Some(Event { process, kind, function, key: String::new(), value })
    });
    events.collect()
}

/// Calls joined with what became of them; the time is the line. `operation` gets the call and its
/// end, `None` for an unknown outcome, and says `None` for what may be left out.
fn joined<O>(
    events: &[Event],
    operation: impl Fn(&Event, Option<&Event>) -> Option<O>,
) -> Vec<Timed<O>> {
    let mut open: HashMap<u64, usize> = HashMap::new();
    let mut pairs: Vec<(usize, Option<usize>)> = Vec::new();
    for (line, event) in events.iter().enumerate() {
        if event.kind == "invoke" {
            open.insert(event.process, pairs.len());
            pairs.push((line, None));
        } else if let Some(pair) = open.remove(&event.process) {
            pairs[pair].1 = Some(line);
        }
    }
    let timed = pairs.into_iter().filter_map(|(call, end)| {
        let known = end.filter(|&line| events[line].kind != "info");
        let operation = operation(&events[call], known.map(|line| &events[line]))?;
        Some(Timed { operation, invoke_ns: call as u64, return_ns: known.map(|line| line as u64) })
    });
    timed.collect()
}

/// `fail_is_known`: a failed swap saw another value (etcd); else it is only known not to have been.
fn accesses(events: &[Event], fail_is_known: bool) -> Vec<Timed<Access>> {
    joined(events, |call, end| {
        let failed = end.is_some_and(|end| end.kind == "fail");
        match call.function.as_str() {
            "read" => end.filter(|_| !failed).map(|end| Access::Read(end.value.clone())),
            "write" => (!failed).then(|| Access::Write(call.value.clone())),
            "cas" => {
                let words = call.value.trim_matches(['[', ']']);
                let (from, to) = words.split_once(' ').expect("two values");
                let known = end.map(|_| !failed);
                (!failed || fail_is_known).then(|| Access::Swap(from.into(), to.into(), known))
            }
            other => panic!("no operation {other}"),
        }
    })
}

fn verdict<M: Model>(model: &M, operations: &[Timed<M::Operation>], what: &str) -> bool {
    assert!(!operations.is_empty(), "{what}: nothing was read");
    match search(model, operations, CONFIGURATIONS_MAX) {
        Verdict::Linearizable => true,
        Verdict::Violation(_) => false,
        Verdict::Undecided => panic!("{what}: undecided"),
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn etcds_histories_get_their_verdicts() {
    let Some(data) = repository::data_or_skip("etcd's histories") else { return };
    let folder = data.join("linearizability/etcd");
    let mut counts = [0; 2];
    for line in text(&folder.join("expected.csv")).lines().skip(1) {
        let (name, expected) = line.split_once(',').expect("file,verdict");
        let operations = accesses(&jepsen_log(&text(&folder.join(name))), true);
        let linearizable = verdict(&Register, &operations, name);
        assert_eq!(linearizable.to_string(), expected.trim(), "{name}");
        counts[usize::from(linearizable)] += 1;
    }
    assert_eq!(counts, [41, 11]);
}

#[test]
fn knossos_histories_get_their_verdicts() {
    let Some(data) = repository::data_or_skip("Knossos' histories") else { return };
    for (folder, expected) in [("good", true), ("bad", false)] {
        let mut count = 0;
        let folder = data.join("linearizability/knossos").join(folder);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            let operations = accesses(&edn(&text(&path)), false);
            assert_eq!(verdict(&Register, &operations, &name), expected, "{name}");
            count += 1;
        }
        assert!(count >= 3, "{count} files");
    }
}

#[test]
fn the_key_value_histories_get_their_verdicts() {
    let Some(data) = repository::data_or_skip("the key-value histories") else { return };
    for (name, expected) in
        [("c01-ok", true), ("c01-bad", false), ("c10-ok", true), ("c10-bad", false)]
    {
        let path = data.join(format!("linearizability/kv/{name}.txt"));
        let mut keys: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        // A process has one call open at a time, so its events can be told apart by key.
        for event in edn(&text(&path)) {
            keys.entry(event.key.clone()).or_default().push(event);
        }
        let all = keys.iter().map(|(key, events)| {
            let edits = joined(events, |call, end| match call.function.as_str() {
                "get" => end.map(|end| Edit::Get(end.value.clone())),
                "put" => Some(Edit::Put(call.value.clone())),
                "append" => Some(Edit::Append(call.value.clone())),
                other => panic!("no operation {other}"),
            });
            verdict(&Text, &edits, &format!("{name}, key {key}"))
        });
        let verdicts: Vec<bool> = all.collect();
        assert_eq!(verdicts.iter().all(|&linearizable| linearizable), expected, "{name}");
    }
}
