#!/usr/bin/env python3
"""Writes control/src/calendar/calendars.toml: when the venues of the catalogue trade.

    python3 -m venv target/calendars
    target/calendars/bin/pip install exchange_calendars==4.13.2
    target/calendars/bin/python scripts/calendars.py > control/src/calendar/calendars.toml

The same version and days give the same bytes. Before anything is printed the file is read again, each of its
sessions is worked out anew with Python's own time zones, and all of them must be those of the package.
"""

import argparse
import datetime
import importlib.metadata
import sys
import textwrap
import tomllib
import warnings
import zoneinfo

import exchange_calendars

DAY = datetime.timedelta(days=1)

# Which calendar of the package holds for which venues. A venue stands here only where the package has it, or names
# it by an alias (CMES: CME, CBOT, NYMEX, COMEX; XNYS: Nasdaq, BATS, ARCA, NYSE American), or where all such
# exchanges keep the same days and regular hours: those of US shares, and the two of India. Markets of derivatives beside a
# share market (xose, xhkf, xsim, xsfe), ifeu, and those that trade at night or the shares of several countries
# (chij, sbij, bate, chix, aqxe) have calendars of their own, which the package lacks: they stay unknown.
VENUES = {
    "XNYS": "xnys xase arcx xcis xchi xnas xpsx xbos bats baty edga edgx memx",
    "CMES": "xcme xcbt xnym xcec",
    "XLON": "xlon",
    "XETR": "xetr",
    "XEUR": "xeur",
    "XPAR": "xpar",
    "XAMS": "xams",
    "XBRU": "xbru",
    "XLIS": "xlis",
    "XMIL": "xmil",
    "XTKS": "xtks",
    "XHKG": "xhkg",
    "XSES": "xses",
    "XASX": "xasx",
    "XBOM": "xnse",
    "BVMF": "bvmf",
}


def local_schedule(calendar):
    """By day: open, start and end of the break (or None), close, as local times without a zone."""
    schedule = {}
    for day, row in zip(calendar.schedule.index, calendar.schedule.itertuples(index=False)):
        moments = [None if m != m else m.tz_convert(calendar.tz).to_pydatetime() for m in row]
        # Whoever reads the file takes the earlier of two equal local times: no session may need the later.
        assert not any(m and m.fold for m in moments), day
        schedule[day.date()] = tuple(m and m.replace(tzinfo=None) for m in moments)
    return schedule


def clock(moment):
    assert moment.second == moment.microsecond == 0, moment
    return moment.strftime("%H:%M")


def regular(times):
    """The value of the key `hours` for a calendar's regular times: from which day on, what."""
    opens, closes = dict(times["open"]), dict(times["close"])
    starts, ends = dict(times["break_start"]), dict(times["break_end"])
    rows = []
    for start in sorted({*opens, *closes, *starts, *ends}):
        at = [max((day, time) for day, time in of.items() if day <= start)[1] if of else None
              for of in (opens, closes, starts, ends)]
        rows.append((start, at))
    return rows


def section(name, first, last):
    calendar = exchange_calendars.get_calendar(name, start=first.isoformat(), end=last.isoformat())
    schedule = local_schedule(calendar)
    assert calendar.weekmask == "1111100", name
    assert calendar.open_offset in (-1, 0) and calendar.close_offset == 0, name

    def since(times):
        days = [(first if day is None else max(day.date(), first), time) for day, time in times or ()]
        return dict(days)  # Of several that began before the first day the latest stays.

    rows = regular({"open": since(calendar.open_times), "close": since(calendar.close_times),
                    "break_start": since(calendar.break_start_times),
                    "break_end": since(calendar.break_end_times)})
    lines = [f"# {name}", "[[calendar]]", "venues = [" + quoted(VENUES[name].split()) + "]",
             f'time_zone = "{calendar.tz.key}"', f'first = "{first}"', f'last = "{last}"', "hours = ["]
    for start, (opens, closes, break_start, break_end) in rows:
        keys = [] if start == first else [f'from = "{start}"']
        keys.append(f'open = "{clock_of(opens)}"')
        if calendar.open_offset == -1:
            keys.append("day_before = true")
        keys.append(f'close = "{clock_of(closes)}"')
        if break_start:
            keys.append(f'break = ["{clock_of(break_start)}", "{clock_of(break_end)}"]')
        lines.append("    { " + ", ".join(keys) + " },")
    lines.append("]")

    def usual(day):
        return [at for start, at in rows if start <= day][-1]

    days = [first + n * DAY for n in range((last - first).days + 1)]
    weekdays = [day for day in days if day.weekday() < 5]
    lines += listed("holidays", [day for day in weekdays if day not in schedule])
    lines += listed("sessions", [day for day in schedule if day.weekday() >= 5])
    for key, place, column in [("opens", 0, 0), ("closes", 1, 3)]:
        special = {}
        for day, moments in schedule.items():
            if moments[column].time() != usual(day)[place]:
                special.setdefault(clock(moments[column]), []).append(day)
        lines += [line for time in sorted(special) for line in listed(f'{key}."{time}"', special[time])]
    return "\n".join(lines) + "\n", schedule


def clock_of(time):
    assert time.second == 0
    return time.strftime("%H:%M")


def quoted(words):
    return ", ".join(f'"{word}"' for word in words)


def listed(key, days):
    if not days:
        return []
    text = quoted([day.isoformat() for day in days])
    wrapped = textwrap.wrap(text, 104, initial_indent="    ", subsequent_indent="    ")
    return [f"{key} = [", *wrapped, "]"]


def sessions_of(table):
    """The sessions that a section means, with none of the package's help."""
    day_of, time_of = datetime.date.fromisoformat, datetime.time.fromisoformat
    first, last = day_of(table["first"]), day_of(table["last"])
    special = {key: {day_of(day): time_of(time) for time, days in table.get(key, {}).items() for day in days}
               for key in ("opens", "closes")}
    closed, extra = ({day_of(day) for day in table.get(key, [])} for key in ("holidays", "sessions"))
    found, day = {}, first
    while day <= last:
        if (day.weekday() < 5 and day not in closed) or day in extra:
            hours = [row for row in table["hours"] if day_of(row.get("from", table["first"])) <= day][-1]
            opens = special["opens"].get(day, time_of(hours["open"]))
            closes = special["closes"].get(day, time_of(hours["close"]))
            breaks = [time_of(time) for time in hours.get("break", [])]
            if breaks and breaks[0] >= closes:
                breaks = []
            at = datetime.datetime.combine
            middle = [at(day, time) for time in breaks] or [None, None]
            found[day] = (at(day - DAY if hours.get("day_before") else day, opens), *middle, at(day, closes))
        day += DAY
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    date = datetime.date.fromisoformat
    arguments.add_argument("--first", type=date, default=date("2024-01-01"), help="first day that is covered")
    arguments.add_argument("--last", type=date, default=date("2027-11-29"),
                           help="last one; a calendar that the package knows less far of ends before")
    told = arguments.parse_args()
    warnings.simplefilter("ignore")
    version = importlib.metadata.version("exchange_calendars")
    text = f"""\
# When venues trade, in local time of each. Written by scripts/calendars.py, not by hand; a site's own file may
# replace and add (control.catalogue.file).
#
# From the package exchange_calendars {version} (Apache-2.0): facts alone, which days and which times.
# A day is a session if it is Monday to Friday and no holiday, or stands in `sessions`. `hours` are the usual
# ones, from a day on; `day_before` means that the session opens on the evening before its day; `opens` and
# `closes` are days with another open or close. Before `first` and after `last` nothing is known. The times are
# those of continuous trading: auctions before the open and after the close are not in the package.
"""
    schedules = {}
    for name in VENUES:
        bound = exchange_calendars.get_calendar(name).bound_max()
        last = told.last if bound is None else min(told.last, bound.date())
        part, schedules[name] = section(name, told.first, last)
        text += "\n" + part
    tables = tomllib.loads(text)["calendar"]
    for (name, schedule), table in zip(schedules.items(), tables, strict=True):
        zoneinfo.ZoneInfo(table["time_zone"])
        if sessions_of(table) != schedule:
            sys.exit(f"{name}: the sessions of this file are not those of the package")
    print(text, end="")


if __name__ == "__main__":
    main()
