//! What may differ between two answers. Each rule stands by its name in the table of
//! `src/memcached/README.md`, allows one kind of difference, and must be needed.

use std::collections::BTreeMap;

/// A kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The text of `VERSION`.
    VersionText,
    /// A version that is not 0, as a number.
    Versions,
    /// Times that run, by two seconds; last access by sixty.
    Clock,
    /// The time left of a value that expired at once.
    ExpiredTime,
    /// Sizes and classes of memory.
    Memory,
    /// Which statistics there are.
    Statistics,
    /// What `stats cachedump` shows.
    CacheDump,
    /// Whether a key is returned in base64.
    BinaryKey,
    /// Answers that are lost because a later `get` names a key that is too long.
    LostAnswers,
}

impl Rule {
    pub const ALL: [Self; 9] = [
        Self::VersionText,
        Self::Versions,
        Self::Clock,
        Self::ExpiredTime,
        Self::Memory,
        Self::Statistics,
        Self::CacheDump,
        Self::BinaryKey,
        Self::LostAnswers,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::VersionText => "version-text",
            Self::Versions => "versions",
            Self::Clock => "clock",
            Self::ExpiredTime => "expired-time",
            Self::Memory => "memory",
            Self::Statistics => "statistics",
            Self::CacheDump => "cachedump",
            Self::BinaryKey => "binary-key",
            Self::LostAnswers => "lost-answers",
        }
    }
}

/// How often each rule was needed.
pub type Used = BTreeMap<Rule, u64>;

/// Compares two answers line by line; what differs without a rule is returned.
/// `all`: whether theirs must be whole.
pub fn differ(
    text: &[u8],
    ours: &[u8],
    theirs: &[u8],
    all: bool,
    used: &mut Used,
) -> Option<String> {
    let (mut ours, mut theirs) = (lines(ours), lines(theirs));
    // Statistics come as lines of which there are not the same.
    for (line, rule) in [("STAT ", Rule::Statistics), ("ITEM ", Rule::CacheDump)] {
        let before = theirs.len();
        theirs.retain(|other| !other.starts_with(line));
        ours.retain(|other| !other.starts_with(line));
        *used.entry(rule).or_default() += (before - theirs.len()) as u64;
    }
    let too_long = [b'k'; 251];
    let named = text.windows(too_long.len() + 5).any(|part| {
        part.ends_with(&too_long)
            && part[..5].windows(3).any(|word| word == b"get" || word == b"ets")
    });
    pairwise(&ours, &theirs, (named, all), used)
}

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

/// `may_lose`: some lines may be missing before an error of this kind; `all`: none at the end.
fn pairwise(
    ours: &[String],
    theirs: &[String],
    (may_lose, all): (bool, bool),
    used: &mut Used,
) -> Option<String> {
    let (Some(line), Some(other)) = (ours.first(), theirs.first()) else {
        let differ = if all { ours.len() != theirs.len() } else { ours.len() < theirs.len() };
        return differ.then(|| format!("{:?}: {:?}", ours.first(), theirs.first()));
    };
    let mut result = Some(format!("{line:?}: {other:?}"));
    if let Some(rules) = line_rules(line, other) {
        let mut tried = used.clone();
        rules.into_iter().for_each(|rule| *tried.entry(rule).or_default() += 1);
        result = pairwise(&ours[1..], &theirs[1..], (may_lose, all), &mut tried);
        if result.is_none() {
            *used = tried;
            return None;
        }
    }
    if may_lose && other == BAD_FORMAT {
        for at in (1..ours.len()).filter(|&at| ours[at] == *other) {
            let mut tried = used.clone();
            if pairwise(&ours[at + 1..], &theirs[1..], (true, all), &mut tried).is_none() {
                *used = tried;
                *used.entry(Rule::LostAnswers).or_default() += 1;
                return None;
            }
        }
    }
    result
}

fn lines(text: &[u8]) -> Vec<String> {
    text.split_inclusive(|&byte| byte == b'\n')
        .map(|line| line.iter().map(|&byte| char::from(byte)).collect())
        .collect()
}

/// The rules that a line needs, word by word. `None`: none would do.
fn line_rules(ours: &str, theirs: &str) -> Option<Vec<Rule>> {
    if ours == theirs {
        return Some(Vec::new());
    }
    if ours.starts_with("CLIENT_ERROR stats cachedump not allowed") && theirs == "END\r\n" {
        return Some(vec![Rule::CacheDump]);
    }
    let (mut our_words, mut their_words): (Vec<_>, Vec<_>) =
        (ours.trim_end().split(' ').collect(), theirs.trim_end().split(' ').collect());
    let verb = our_words.remove(0);
    if verb != their_words.remove(0) {
        return None;
    }
    let mut rules = Vec::new();
    let is_meta = ["HD", "VA", "EN", "ME", "NS", "EX", "NF"].contains(&verb);
    // A key in base64 is said to be so by a word of its own.
    let keys = (key_of(&our_words), key_of(&their_words));
    if is_meta
        && let (Some((our_key, our_b)), Some((their_key, their_b))) = keys
        && our_b != their_b
    {
        let (text, encoded) = if our_b { (their_key, our_key) } else { (our_key, their_key) };
        if encode(text) != encoded {
            return None;
        }
        rules.push(Rule::BinaryKey);
        for words in [&mut our_words, &mut their_words] {
            words.retain(|word| !word.starts_with('k') && *word != "b");
        }
    }
    if our_words.len() != their_words.len() {
        return None;
    }
    for (at, (our_word, their_word)) in our_words.iter().zip(&their_words).enumerate() {
        if our_word == their_word {
            continue;
        }
        rules.push(match verb {
            "VERSION" if at == 0 => Rule::VersionText,
            "ME" if at == 0 && encode(our_word) == *their_word => Rule::BinaryKey,
            "ME" if at == 0 && encode(their_word) == *our_word => Rule::BinaryKey,
            "VALUE" if at == 3 => versions(our_word, their_word)?,
            _ if is_meta => word_rule(our_word, their_word)?,
            _ => return None,
        });
    }
    Some(rules)
}

/// The key in the flags of an answer, and whether it is in base64.
fn key_of<'a>(words: &[&'a str]) -> Option<(&'a str, bool)> {
    let at = words.iter().position(|word| word.starts_with('k'))?;
    Some((&words[at][1..], words.get(at + 1) == Some(&"b")))
}

fn encode(text: &str) -> String {
    use nautilus_dataplane::memcached::base64;
    let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let mut out = [0; base64::ENCODED_BYTES_MAX];
    let count = base64::encode(&bytes, &mut out);
    String::from_utf8(out[..count].to_vec()).unwrap()
}

fn versions(ours: &str, theirs: &str) -> Option<Rule> {
    let set = |word: &str| word.parse::<u64>().is_ok_and(|version| version > 0);
    (set(ours) && set(theirs)).then_some(Rule::Versions)
}

fn word_rule(ours: &str, theirs: &str) -> Option<Rule> {
    for (front, bound) in [("t", 2), ("l", 60), ("la=", 60), ("exp=", 2)] {
        let number = |word: &str| word.strip_prefix(front)?.parse::<i64>().ok();
        if let (Some(ours), Some(theirs)) = (number(ours), number(theirs)) {
            let forever = front == "t" && (ours < 0 || theirs < 0);
            if !forever && (ours - theirs).abs() <= bound {
                return Some(Rule::Clock);
            }
            // It shows how long ago that was as an unsigned number.
            return (front == "t" && ours == 0 && theirs > 4_000_000_000)
                .then_some(Rule::ExpiredTime);
        }
    }
    for front in ["cas=", "c"] {
        if let (Some(ours), Some(theirs)) = (ours.strip_prefix(front), theirs.strip_prefix(front))
            && ours.parse::<u64>().is_ok()
        {
            return versions(ours, theirs);
        }
    }
    let memory = |word: &str| word.starts_with("size=") || word.starts_with("cls=");
    (memory(ours) && memory(theirs)).then_some(Rule::Memory)
}
