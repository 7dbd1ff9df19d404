//! A5: how often a cache has what is asked for. The cloudPhysics trace at eight sizes and a made-up
//! market day, the same batches to our table and to memcached of the same memory; and the policy alone
//! against LRU at equal capacity. Nothing here is a time, so the spin probe has nothing to say.

use anyhow::Context;
use nautilus_tests::repository;

use crate::ground::Ground;
use crate::replay::memcached::Memcached;
use crate::replay::reference::{Policy, Reference};
use crate::replay::table::{self, Unit, misses};
use crate::replay::trace::{self, Request, SIZES_MIB};
use crate::replay::{self, Access, market};
use crate::row::{Peer, Row};
use crate::run::{Bench, Half};
use crate::stage;

/// Measures, in the order of `rows.toml`: one a size, then these.
const MARKET: usize = SIZES_MIB.len();
const OVER_LRU: usize = MARKET + 1;
const OVER_LRU_BY_COUNT: usize = MARKET + 2;
const MEASURES: usize = MARKET + 3;

/// The row.
pub struct A5 {
    trace: Vec<Request>,
    accesses: Vec<Access>,
    /// LRU's misses at each size, counted in blocks and in objects.
    lru: Vec<(u64, u64)>,
    peer: Option<Peer>,
    missing: Option<String>,
    quick: bool,
    /// Halves each side has measured: the pair, in a run without repeats.
    done: [u64; 2],
    ground: Ground,
}

impl A5 {
    /// Reads the trace and replays the reference.
    pub fn set_up(row: &Row, quick: bool) -> anyhow::Result<Self> {
        let data = repository::data()
            .context("the cloudPhysics trace is missing: set NAUTILUS_DATA to the data folder")?;
        let trace = trace::read(&data)?;
        let accesses = trace.iter().map(Request::access).collect();
        let objects: Vec<Request> =
            trace.iter().map(|request| Request { bytes: 1, ..*request }).collect();
        let lru = SIZES_MIB.into_iter().map(|size_mib| {
            let capacity_bytes = u64::from(size_mib) << 20;
            let by_object = Unit::Object.capacity(capacity_bytes, &trace).into();
            let run =
                |capacity, trace: &[_]| Reference::new(Policy::Lru, capacity).run(trace).count;
            (run(capacity_bytes, &trace), run(by_object, &objects))
        });
        let lru = lru.collect();
        let mut missing = None;
        let mut peer = None;
        if let Some(spec) = &row.peer {
            match stage::find_peer(spec) {
                Ok(_) => peer = Some(spec.clone()),
                Err(why) => missing = Some(why),
            }
        }
        Ok(Self {
            trace,
            accesses,
            lru,
            peer,
            missing,
            quick,
            done: [0; 2],
            ground: Ground::new()?,
        })
    }

    /// Whether a size is measured in this pair. Quick: three pairs share the eight sizes.
    fn measures(&self, index: usize, pair: u64) -> bool {
        !self.quick || index as u64 % 3 == pair % 3
    }

    /// One value a measure of this pair; `replayed` gets the index of the size, or [`MARKET`].
    fn replays(
        &self,
        pair: u64,
        replayed: impl Fn(&[Access], u32) -> anyhow::Result<f64> + Sync,
    ) -> anyhow::Result<Vec<Option<f64>>> {
        let day = market::day(pair);
        let mut jobs: Vec<usize> =
            (0..SIZES_MIB.len()).filter(|&index| self.measures(index, pair)).collect();
        jobs.push(MARKET);
        let mut values = vec![None; MEASURES];
        let ratios = side_by_side(&jobs, |&index| match SIZES_MIB.get(index) {
            Some(&size_mib) => replayed(&self.accesses, size_mib),
            None => replayed(&day, market::MEMORY_MB),
        })?;
        for (index, ratio) in jobs.into_iter().zip(ratios) {
            values[index] = Some(ratio);
        }
        Ok(values)
    }

    fn ours(&self, pair: u64) -> anyhow::Result<Vec<Option<f64>>> {
        let seed = 0x6e61_7574 + pair;
        let mut values = self.replays(pair, |accesses, memory_mb| {
            let mut table = table::of_memory(memory_mb, seed)?;
            Ok(replay::run(accesses, &mut table)?.hit_ratio())
        })?;
        // The policy alone costs eight replays: once is enough for a quick look.
        if !self.quick || pair == 0 {
            values[OVER_LRU] = Some(self.over_lru(Unit::Block, seed)?);
            values[OVER_LRU_BY_COUNT] = Some(self.over_lru(Unit::Object, seed)?);
        }
        Ok(values)
    }

    /// Our hits over LRU's at equal capacity, at the size where that is smallest.
    fn over_lru(&self, unit: Unit, seed: u64) -> anyhow::Result<f64> {
        let jobs: Vec<usize> = (0..SIZES_MIB.len()).collect();
        let ratios = side_by_side(&jobs, |&index| {
            let (by_block, by_object) = self.lru[index];
            let lru = if unit == Unit::Block { by_block } else { by_object };
            let size_mib = SIZES_MIB[index];
            let cells = unit.capacity(u64::from(size_mib) << 20, &self.trace);
            let ours = misses(&self.trace, unit, cells, seed)?;
            eprintln!("A5: {unit:?}, {size_mib} MiB or {cells} cells: {ours} misses, LRU {lru}");
            let count = self.trace.len() as u64;
            Ok((count - ours) as f64 / (count - lru) as f64)
        })?;
        Ok(ratios.into_iter().fold(f64::INFINITY, f64::min))
    }

    fn peer(&self, spec: &Peer, pair: u64) -> anyhow::Result<Vec<Option<f64>>> {
        self.replays(pair, |accesses, memory_mb| {
            let mut memcached = Memcached::start(&spec.command, memory_mb, &self.ground)?;
            let outcome = replay::run(accesses, &mut memcached)?;
            memcached.check(memory_mb)?;
            Ok(outcome.hit_ratio())
        })
    }
}

/// Does two jobs at a time: hit ratios do not mind company.
fn side_by_side<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let halves = jobs.split_at(jobs.len() / 2);
    let done = std::thread::scope(|scope| {
        let other = scope.spawn(|| halves.0.iter().map(&work).collect::<anyhow::Result<Vec<R>>>());
        let own = halves.1.iter().map(&work).collect::<anyhow::Result<Vec<R>>>();
        (other.join(), own)
    });
    let mut all = done.0.map_err(|_| anyhow::anyhow!("a replay panicked"))??;
    all.extend(done.1?);
    Ok(all)
}

impl Bench for A5 {
    fn sides(&self) -> Vec<String> {
        let peer = self.peer.iter().map(|peer| peer.name.clone());
        std::iter::once("nautilus table".to_owned()).chain(peer).collect()
    }

    fn peer_of(&self, measure: usize) -> Option<usize> {
        (self.peer.is_some() && measure <= MARKET).then_some(1)
    }

    fn half(&mut self, side: usize) -> anyhow::Result<Half> {
        let pair = self.done[side];
        self.done[side] += 1;
        let values = match &self.peer {
            Some(spec) if side == 1 => self.peer(spec, pair)?,
            _ => self.ours(pair)?,
        };
        Ok(Half { values, ..Half::default() })
    }

    fn missing(&self) -> Option<String> {
        self.missing.clone()
    }
}
