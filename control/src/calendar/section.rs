//! `[[calendar]]` as it stands in a file, and what can be wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::venue::{Calendar, Hours, instant_ns, usual_weekdays};

/// Days a calendar may have. Before 1970 there is no instant, and what lies far off is a typing error.
const DAYS: (Date, Date) = (date(1971, 1, 1), date(2099, 12, 31));

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A day in minutes.
const DAY: i32 = 24 * 60;

/// When some venues trade. Times are local, `HH:MM`, up to 24:00; days are `YYYY-MM-DD`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// Market identifier codes in lower case.
    pub venues: Vec<String>,
    /// A venue whose calendar this is, but for what the other keys say.
    like: Option<String>,
    /// IANA name.
    time_zone: Option<String>,
    /// First day that is covered.
    first: Option<String>,
    /// Last one.
    last: Option<String>,
    /// Days of the week with sessions; Monday to Friday unless said.
    weekdays: Option<Vec<String>>,
    /// Usual hours, earliest first.
    hours: Vec<HoursKeys>,
    /// Days without a session.
    holidays: Vec<String>,
    /// Days with a session although they are no weekday of it, or a holiday of what it is like.
    sessions: Vec<String>,
    /// Days that open at another time, by time.
    opens: BTreeMap<String, Vec<String>>,
    /// Days that close at another time.
    closes: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursKeys {
    /// From which day on; only the first may leave it out.
    from: Option<String>,
    open: String,
    /// It opens on the day before the session's.
    #[serde(default)]
    day_before: bool,
    close: String,
    /// Begin and end.
    #[serde(rename = "break")]
    recess: Option<[String; 2]>,
}

type Wrong = (String, String);

impl Section {
    /// The calendar that this means; `known` finds that of another venue. An error is the key, and what is wrong.
    pub(super) fn calendar(
        &self,
        known: impl Fn(&str) -> Option<Arc<Calendar>>,
    ) -> Result<Calendar, Wrong> {
        self.check_venues()?;
        let base = self.like.as_ref().map(|venue| {
            let missing = || ("like".into(), format!("{venue} has no calendar"));
            known(venue).ok_or_else(missing)
        });
        let base = base.transpose()?;
        let base = base.as_deref();
        let zone = match &self.time_zone {
            Some(name) => TimeZone::get(name)
                .map_err(|_| ("time_zone".into(), format!("{name:?} is no IANA name")))?,
            None => base.ok_or_else(|| missing("time_zone"))?.zone.clone(),
        };
        let bound = |key: &str, value: &Option<String>, of: fn(&Calendar) -> Date| match value {
            Some(text) => day(key, text, DAYS),
            None => Ok(of(base.ok_or_else(|| missing(key))?)),
        };
        let first = bound("first", &self.first, |base| base.days.0)?;
        let last = bound("last", &self.last, |base| base.days.1)?;
        if last < first {
            return Err(("last".into(), format!("{last} is before {first}")));
        }
        let days = (first, last);
        let weekdays = self.weekdays(base)?;
        let hours = self.hours(base, days)?;
        let known_ns = covered(&zone, days, &hours);
        let mut made = Calendar {
            zone,
            days,
            weekdays,
            hours,
            holidays: base.map_or_else(BTreeSet::new, |base| base.holidays.clone()),
            sessions: base.map_or_else(BTreeSet::new, |base| base.sessions.clone()),
            opens: base.map_or_else(BTreeMap::new, |base| base.opens.clone()),
            closes: base.map_or_else(BTreeMap::new, |base| base.closes.clone()),
            known_ns,
        };
        for (index, text) in self.holidays.iter().enumerate() {
            let holiday = day(&format!("holidays[{index}]"), text, days)?;
            made.holidays.insert(holiday);
            made.sessions.remove(&holiday);
        }
        for (index, text) in self.sessions.iter().enumerate() {
            let session = day(&format!("sessions[{index}]"), text, days)?;
            if self.holidays.contains(text) {
                return Err((format!("sessions[{index}]"), format!("{text} is a holiday too")));
            }
            made.holidays.remove(&session);
            made.sessions.insert(session);
        }
        self.specials(&mut made)?;
        Ok(made)
    }

    fn check_venues(&self) -> Result<(), Wrong> {
        let is_code = |venue: &String| {
            venue.len() == 4
                && venue.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        match self.venues.iter().position(|venue| !is_code(venue)) {
            None if self.venues.is_empty() => {
                Err(("venues".into(), "a calendar needs a venue".into()))
            }
            None => Ok(()),
            Some(index) => {
                let reason =
                    format!("{:?} is no market identifier code in lower case", self.venues[index]);
                Err((format!("venues[{index}]"), reason))
            }
        }
    }

    fn weekdays(&self, base: Option<&Calendar>) -> Result<[bool; 7], Wrong> {
        let Some(names) = &self.weekdays else {
            return Ok(base.map_or_else(usual_weekdays, |base| base.weekdays));
        };
        let mut days = [false; 7];
        for (index, name) in names.iter().enumerate() {
            let place = WEEKDAYS.iter().position(|known| known == name);
            let reason = || format!("{name:?} is none of {}", WEEKDAYS.join(", "));
            days[place.ok_or_else(|| (format!("weekdays[{index}]"), reason()))?] = true;
        }
        Ok(days)
    }

    fn hours(
        &self,
        base: Option<&Calendar>,
        days: (Date, Date),
    ) -> Result<BTreeMap<Date, Hours>, Wrong> {
        if self.hours.is_empty() {
            let mut hours = base.ok_or_else(|| missing("hours"))?.hours.clone();
            // Those that hold on the first day, whatever day they were said from.
            let (_, earliest) = hours
                .range(..=days.0)
                .next_back()
                .or(hours.first_key_value())
                .ok_or_else(|| missing("hours"))?;
            let earliest = *earliest;
            hours.insert(days.0, earliest);
            return Ok(hours.split_off(&days.0));
        }
        let mut hours = BTreeMap::new();
        for (index, keys) in self.hours.iter().enumerate() {
            let at = |key: &str| format!("hours[{index}].{key}");
            let from = match &keys.from {
                Some(text) => day(&at("from"), text, days)?,
                None if index == 0 => days.0,
                None => return Err(missing(&at("from"))),
            };
            if index == 0 && from != days.0 {
                return Err((at("from"), format!("nothing is said of {} to then", days.0)));
            }
            if hours.last_key_value().is_some_and(|(last, _)| from <= *last) {
                return Err((at("from"), format!("{from} is not after the one before")));
            }
            let back = if keys.day_before { DAY } else { 0 };
            let open = minutes(&at("open"), &keys.open)? - back;
            let close = minutes(&at("close"), &keys.close)?;
            if open >= close || close - open > DAY {
                let reason = format!("from {} to {} is no session", keys.open, keys.close);
                return Err((at("close"), reason));
            }
            let mut recess = None;
            if let Some([from, until]) = &keys.recess {
                let pair = (minutes(&at("break[0]"), from)?, minutes(&at("break[1]"), until)?);
                if !(open < pair.0 && pair.0 < pair.1 && pair.1 < close) {
                    return Err((at("break"), "it is not within the session".into()));
                }
                recess = Some(pair);
            }
            hours.insert(from, Hours { open, close, recess });
        }
        Ok(hours)
    }

    /// Days with other times, each checked against all else that is known of it.
    fn specials(&self, made: &mut Calendar) -> Result<(), Wrong> {
        let days = made.days;
        let mut said: Vec<(String, Date)> = Vec::new();
        for (name, times) in [("opens", &self.opens), ("closes", &self.closes)] {
            let mut seen = BTreeSet::new();
            for (time, texts) in times {
                let value = minutes(&format!("{name}.{time:?}"), time)?;
                for (index, text) in texts.iter().enumerate() {
                    let key = format!("{name}.{time:?}[{index}]");
                    let special = day(&key, text, days)?;
                    if !seen.insert(special) {
                        return Err((key, format!("{text} stands at another time too")));
                    }
                    let usual = made.hours.range(..=special).next_back();
                    let is_before = usual.is_some_and(|(_, hours)| hours.open < 0);
                    match name {
                        "opens" if is_before => made.opens.insert(special, value - DAY),
                        "opens" => made.opens.insert(special, value),
                        _ => made.closes.insert(special, value),
                    };
                    said.push((key, special));
                }
            }
        }
        if let Some((key, special)) =
            said.iter().find(|(_, special)| made.hours_of(*special).is_none())
        {
            return Err((key.clone(), format!("{special} is no session")));
        }
        // Those of what it is like too: this section's hours may be others.
        for special in made.opens.keys().chain(made.closes.keys()) {
            let Some(hours) = made.hours_of(*special) else { continue };
            if hours.open >= hours.close || hours.close - hours.open > DAY {
                let key = said.iter().find(|(_, day)| day == special).map(|(key, _)| key.clone());
                let reason = format!("{special} would close before it opens");
                return Err((key.unwrap_or_else(|| "hours".into()), reason));
            }
        }
        Ok(())
    }
}

/// What these days cover, ns since 1970: from their first midnight to their last, or to where a session of the day
/// after, of which nothing is known, may open the evening before.
fn covered(zone: &TimeZone, days: (Date, Date), hours: &BTreeMap<Date, Hours>) -> (u64, u64) {
    let open = hours.last_key_value().map_or(0, |(_, hours)| hours.open.min(0));
    (instant_ns(zone, days.0, 0), instant_ns(zone, days.1, DAY + open))
}

fn missing(key: &str) -> Wrong {
    (key.into(), "it is missing, and no `like` says it".into())
}

fn day(key: &str, text: &str, (first, last): (Date, Date)) -> Result<Date, Wrong> {
    // Nothing but YYYY-MM-DD: what reads days takes times after them, and other spellings.
    let read = text.parse::<Date>().ok().filter(|day| day.to_string() == text);
    let day = read.ok_or_else(|| (key.into(), format!("{text:?} is no day, YYYY-MM-DD")))?;
    if day < first || day > last {
        return Err((key.into(), format!("{day} is not in {first}..={last}")));
    }
    Ok(day)
}

/// Minutes after midnight, up to 24:00.
fn minutes(key: &str, text: &str) -> Result<i32, Wrong> {
    let two = |digits: &str| {
        let is_two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| digits.parse::<i32>().ok()).flatten()
    };
    let read = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes) = (two(hours)?, two(minutes)?);
        (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
    });
    read.ok_or_else(|| (key.into(), format!("{text:?} is no time, HH:MM")))
}
