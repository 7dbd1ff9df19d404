//! Random requests: every command, right and wrong in many ways.

use super::Random;

/// A piece of a request. What a version is, each server knows for itself.
pub enum Piece {
    Text(Vec<u8>),
    /// The version of a key's value as of before the request, or one that is lower by so much; 1 where
    /// there is no value.
    Version {
        key: String,
        below: u64,
    },
}

/// A request.
pub struct Command(pub Vec<Piece>);

impl Command {
    /// The text for one server, which is asked for versions by `version`.
    pub fn text(&self, mut version: impl FnMut(&str) -> Option<u64>) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(bytes) => text.extend(bytes),
                Piece::Version { key, below } => {
                    let version = version(key).map_or(1, |version| version - below);
                    text.extend(version.to_string().bytes());
                }
            }
        }
        text
    }

    fn of(text: impl Into<Vec<u8>>) -> Self {
        Self(vec![Piece::Text(text.into())])
    }
}

/// What a value may expire after: never, in the run's future, or long ago. Nothing expires while the
/// test runs, however slow the machine: the two sides would notice at different requests.
const TIMES: [&str; 9] =
    ["0", "0", "100000", "1000000", "-1", "2592001", "2000000000", "+100000", "-9999"];
const NUMBERS: [&str; 10] =
    ["0", "1", "7", "+3", "4294967295", "18446744073709551615", "-1", "x", "", "99x"];

impl Random {
    pub fn key(&mut self) -> String {
        match self.below(14) {
            0 => "k".repeat(250),
            1 => "k\u{1}\u{7f}\u{e4}".into(),
            2 => "Zm9v".into(),
            3 => "foo".into(),
            other => format!("key{}", other % 7),
        }
    }

    fn gap(&mut self) -> &'static str {
        self.pick(&[" ", " ", " ", " ", "  "])
    }

    fn end(&mut self) -> &'static str {
        self.pick(&["\r\n", "\r\n", "\r\n", "\n"])
    }

    pub fn command(&mut self) -> Command {
        match self.below(24) {
            0..3 => self.get(),
            3..7 => self.store(),
            7 => self
                .classic_line("delete", &["", "", " 0", " noreply", " 0 noreply", " 1", " a b c"]),
            8 | 9 => self.arithmetic(),
            10 => self.touch(),
            11..15 => self.meta_get(),
            15..18 => self.meta_set(),
            18 | 19 => self.meta_delete(),
            20 | 21 => self.meta_arithmetic(),
            22 => self.other(),
            _ => self.junk(),
        }
    }

    /// Some commands of one text. memcached does not change a number in its place while an answer to
    /// `mg` that holds it is not sent yet; `mn` sends it.
    pub fn commands(&mut self, count: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut held = false;
        for _ in 0..count {
            let command = self.command();
            let Some(Piece::Text(front)) = command.0.first() else { continue };
            let changes =
                [&b"incr"[..], b"decr", b"ma "].iter().any(|verb| front.starts_with(verb));
            if changes && held {
                commands.push(Command::of("mn\r\n"));
            }
            held = (held && !changes) || front.starts_with(b"mg ");
            commands.push(command);
        }
        commands
    }

    fn classic_line(&mut self, verb: &str, tails: &[&str]) -> Command {
        let key = if self.one_in(12) { "k".repeat(251) } else { self.key() };
        Command::of(format!("{verb}{}{key}{}{}", self.gap(), self.pick(tails), self.end()))
    }

    fn get(&mut self) -> Command {
        let verb = self.pick(&["get", "gets", "gat", "gats"]);
        let time = match verb {
            "gat" | "gats" => {
                format!("{} ", self.pick(&["0", "100000", "1000000", "-1", "x", "2592001"]))
            }
            _ => String::new(),
        };
        // `gat` has touched the keys before one that is too long; see the table.
        if self.one_in(20) && time.is_empty() {
            return Command::of(format!("{verb} {}{}", "k".repeat(251), self.end()));
        }
        let count = self.below(5);
        let keys: Vec<_> = (0..count).map(|_| self.key()).collect();
        Command::of(format!("{verb}{}{time}{}{}", self.gap(), keys.join(self.gap()), self.end()))
    }

    /// A value, now and then a number, and its line end, now and then a wrong one.
    fn value(&mut self) -> (usize, Vec<u8>) {
        let mut value = match self.below(8) {
            0..3 => NUMBERS[self.below(6) as usize].as_bytes().to_vec(),
            3 => format!(" {}  ", self.below(1000)).into_bytes(),
            // Letters that begin no command, so that misread data is an ERROR on both sides.
            _ => {
                let most = if self.one_in(10) { 900 } else { 30 };
                let front = self.below(6);
                (0..self.below(most)).map(|byte| b'A' + ((byte + front) % 26) as u8).collect()
            }
        };
        let announced = value.len();
        if self.one_in(12) {
            value.extend(std::iter::repeat_n(b'Q', 1 + self.below(6) as usize));
        }
        value.extend(b"\r\n");
        (announced, value)
    }

    fn length(&mut self, announced: usize) -> String {
        match self.below(24) {
            0 => self.pick(&["-1", "1x", "noreply", "2147483646", ""]).into(),
            _ => announced.to_string(),
        }
    }

    fn version(&mut self, key: &str) -> Vec<Piece> {
        match self.below(6) {
            0 => vec![Piece::Text(self.pick(&["0", "1", "x", "99999999999", "-1"]).into())],
            1 => vec![Piece::Version { key: key.into(), below: 1 }],
            _ => vec![Piece::Version { key: key.into(), below: 0 }],
        }
    }

    fn store(&mut self) -> Command {
        let verb =
            self.pick(&["set", "set", "set", "add", "replace", "append", "prepend", "cas", "cas"]);
        let key = if self.one_in(20) { "k".repeat(251) } else { self.key() };
        let flags = self.pick(&["0", "0", "7", "4294967295", "4294967296", "+3", "x", "-1"]);
        let time = if self.one_in(15) { "z" } else { self.pick(&TIMES) };
        let (announced, value) = self.value();
        let length = self.length(announced);
        let gap = self.gap();
        let mut pieces =
            vec![Piece::Text(format!("{verb}{gap}{key}{gap}{flags} {time} {length}").into())];
        if verb == "cas" {
            pieces.push(Piece::Text(b" ".to_vec()));
            pieces.extend(self.version(&key));
        }
        let tail = self.pick(&["", "", "", " noreply", " foo", " "]);
        pieces.push(Piece::Text(format!("{tail}{}", self.end()).into()));
        pieces.push(Piece::Text(value));
        Command(pieces)
    }

    fn arithmetic(&mut self) -> Command {
        let verb = self.pick(&["incr", "decr"]);
        let delta = self.pick(&NUMBERS);
        let tail = self.pick(&["", "", "", " noreply", " foo", " a b"]);
        self.classic_line(verb, &[&format!(" {delta}{tail}")])
    }

    fn touch(&mut self) -> Command {
        let time = if self.one_in(8) { "x" } else { self.pick(&TIMES) };
        let tail = self.pick(&["", "", "", " noreply", " foo", " a b"]);
        self.classic_line("touch", &[&format!(" {time}{tail}")])
    }

    /// Key and flags of a meta command.
    fn meta(&mut self, verb: &str, length: Option<String>, flags: &[&str]) -> Vec<Piece> {
        let mut key = self.key();
        let mut binary = "";
        if self.one_in(6) {
            binary = " b";
            key = self.pick(&["Zm9v", "AAEC/w==", "aGVsbG8=", "aGVs", "!!!", "Zm9vZg"]).into();
        } else if self.one_in(30) {
            key = "k".repeat(251);
        }
        let length = length.map_or(String::new(), |length| format!(" {length}"));
        let mut pieces = vec![Piece::Text(format!("{verb} {key}{length}{binary}").into())];
        let count = self.below(flags.len() as u64 / 2 + 1);
        let mut left: Vec<&str> = flags.to_vec();
        for _ in 0..count {
            let flag = left.swap_remove(self.below(left.len() as u64) as usize);
            pieces.push(Piece::Text(format!("{}{}", self.gap(), flag).into()));
            match flag {
                "C" => pieces.extend(self.version(&key)),
                "T" | "N" => {
                    let time = self.pick(&["0", "100000", "1000000", "-1", "100000", "1000000"]);
                    pieces.push(Piece::Text(time.into()));
                }
                "R" => {
                    let time = self.pick(&["0", "5", "500000", "5000000", "-1"]);
                    pieces.push(Piece::Text(time.into()));
                }
                "F" | "D" | "J" => {
                    let bound = if self.one_in(4) { 10 } else { 6 };
                    let number = NUMBERS[self.below(bound) as usize];
                    pieces.push(Piece::Text(number.into()));
                }
                _ => {}
            }
        }
        if self.one_in(25) {
            let wrong = self.pick(&[" !", " v v", " Z9", " Tx", " k k", " \u{e4}", " M", " Nz"]);
            pieces.push(Piece::Text(wrong.into()));
        }
        if self.one_in(60) {
            pieces.push(Piece::Text(" v t q k l h s f c u p r z w y x i a d".into()));
        }
        pieces.push(Piece::Text(self.end().into()));
        pieces
    }

    fn opaque(&mut self) -> String {
        "O".repeat(1 + if self.one_in(8) { 31 } else { self.below(31) as usize })
    }

    fn meta_get(&mut self) -> Command {
        let opaque = self.opaque();
        let flags = ["v", "t", "s", "f", "c", "k", "h", "l", "u", "q", "P1", "L1"];
        // An opaque token too long is found after memcached has touched or made a value: see the rule
        // `opaque-first`.
        match self.one_in(2) {
            true => Command(self.meta("mg", None, &[&flags[..], &["T", "N", "R", "O1"]].concat())),
            false => Command(self.meta("mg", None, &[&flags[..], &[&opaque]].concat())),
        }
    }

    fn meta_set(&mut self) -> Command {
        let (announced, value) = self.value();
        let length = self.length(announced);
        let opaque = self.opaque();
        let mode = self.pick(&["ME", "MA", "MP", "MR", "MS", "MS", "MX", "Mxx"]);
        let flags = ["T", "F", "C", "C", "I", "k", "c", "q", &opaque, mode, "v", "t"];
        let mut pieces = self.meta("ms", Some(length), &flags);
        pieces.push(Piece::Text(value));
        Command(pieces)
    }

    fn meta_delete(&mut self) -> Command {
        let opaque = self.opaque();
        Command(self.meta("md", None, &["C", "I", "I", "T", "k", "q", &opaque, "v"]))
    }

    fn meta_arithmetic(&mut self) -> Command {
        let flags = ["N", "J", "D", "C", "t", "c", "v", "v", "q", "k", "O1"];
        // When the number becomes longer, memcached gives the new time to the old item: see the table.
        if self.one_in(4) {
            let mut decrement = self.meta("ma", None, &[&flags[..], &["T", "T"]].concat());
            let end = decrement.len() - 1;
            decrement.insert(end, Piece::Text(b" MD".to_vec()));
            return Command(decrement);
        }
        let mode = self.pick(&["MI", "MD", "M+", "M-", "MX", "Mxx"]);
        Command(self.meta("ma", None, &[&flags[..], &[mode]].concat()))
    }

    fn other(&mut self) -> Command {
        let line = self.pick(&[
            "version",
            "version foo",
            "verbosity 1",
            "verbosity",
            "verbosity x",
            "verbosity 1 noreply",
            "verbosity noreply",
            "stats",
            "stats items",
            "stats slabs",
            "stats settings",
            "stats reset",
            "stats nothing",
            "stats cachedump 1 1",
            "mn",
            "mn foo",
            "me",
            "me none",
            "me key1",
            "me key2 x y",
            "me Zm9v b",
            "flush_all",
            "flush_all 0 noreply",
            "flush_all -1",
            "flush_all x",
            "flush_all x noreply",
            "flush_all 0 a b",
            "shutdown",
        ]);
        Command::of(format!("{line}{}", self.end()))
    }

    fn junk(&mut self) -> Command {
        let end = self.end();
        match self.below(4) {
            0 => Command::of(format!(
                "{}{end}",
                self.pick(&["", " ", "get", "gets ", "set", "GET k"])
            )),
            1 => Command::of(format!(
                "{}{end}",
                self.pick(&["delete", "incr", "touch k", "gat", "ms", "mx"])
            )),
            _ => {
                // Neither a verb nor an end can come of these, nor 0x80, which begins the binary protocol.
                let mut line: Vec<u8> =
                    (0..1 + self.below(40)).map(|_| 129 + self.below(127) as u8).collect();
                line.extend(end.bytes());
                Command::of(line)
            }
        }
    }
}
