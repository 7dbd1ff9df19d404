//! The C ABI. `include/nautilus.h` documents it; a test compares the two. Pointers are checked for
//! null, lengths are believed, and no panic leaves a function.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

mod types;

use types::{CRead, CValue, Status};

use crate::error::{AttachError, ReadError, WaitError};
use crate::many::{Read, TOGETHER};
use crate::reader::{CacheReader, Reattached, Value};

/// Counts changes of the ABI that break a compiled program.
const ABI_VERSION: u32 = 1;

/// `nautilus_attach`: attach again when a read would say `NAUTILUS_DETACHED`.
const AUTOMATIC: u32 = 1;

fn status_of(result: Result<Value, ReadError>) -> Status {
    result.map_or_else(Status::from, |_| Status::Ok)
}

/// Runs the body of a function; a panic becomes a status.
fn guarded(body: impl FnOnce() -> Status) -> i32 {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(Status::Internal) as i32
}

/// # Safety
///
/// `at` is null or points to `bytes` readable bytes that nobody changes for as long as `'a`.
unsafe fn input<'a>(at: *const c_void, bytes: usize) -> Option<&'a [u8]> {
    match (at.is_null(), bytes) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        // SAFETY: by the caller's promise.
        (false, _) => Some(unsafe { std::slice::from_raw_parts(at.cast(), bytes) }),
    }
}

/// # Safety
///
/// `at` is null or points to `bytes` writable bytes that nobody else uses for as long as `'a`.
unsafe fn output<'a>(at: *mut c_void, bytes: usize) -> Option<&'a mut [u8]> {
    match (at.is_null(), bytes) {
        (_, 0) => Some(&mut []),
        (true, _) => None,
        // SAFETY: by the caller's promise.
        (false, _) => Some(unsafe { std::slice::from_raw_parts_mut(at.cast(), bytes) }),
    }
}

/// # Safety
///
/// `value` is null or valid for a write.
unsafe fn tell(value: *mut CValue, told: CValue) {
    if !value.is_null() {
        // SAFETY: by the caller's promise.
        unsafe { value.write(told) };
    }
}

/// Copies a message, cut to what fits with its end.
fn tell_text(out: &mut [u8], text: &str) {
    if let Some(room) = out.len().checked_sub(1) {
        let count = room.min(text.len());
        out[..count].copy_from_slice(&text.as_bytes()[..count]);
        out[count] = 0;
    }
}

#[unsafe(no_mangle)]
extern "C" fn nautilus_abi_version() -> u32 {
    ABI_VERSION
}

#[unsafe(no_mangle)]
extern "C" fn nautilus_status_text(status: i32) -> *const c_char {
    let known = Status::ALL.iter().find(|known| **known as i32 == status);
    known.map_or(c"unknown status", |known| known.text()).as_ptr()
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_attach(
    path: *const c_char,
    cache_id: *const c_char,
    options: u32,
    reader: *mut *mut CacheReader,
    error: *mut c_char,
    error_bytes: usize,
) -> i32 {
    guarded(|| {
        // SAFETY: the header demands a buffer of this size, or null.
        let error = unsafe { output(error.cast(), error_bytes) }.unwrap_or_default();
        if path.is_null() || cache_id.is_null() || reader.is_null() || options & !AUTOMATIC != 0 {
            tell_text(error, "a null pointer or an unknown option");
            return Status::BadArgument;
        }
        // SAFETY: the header demands strings that end.
        let (path, id) = unsafe { (CStr::from_ptr(path), CStr::from_ptr(cache_id)) };
        let attached = match id.to_str() {
            Ok(id) => CacheReader::attach(Path::new(OsStr::from_bytes(path.to_bytes())), id),
            Err(_) => Err(AttachError::CacheId(id.to_string_lossy().into_owned())),
        };
        match attached {
            Ok(mut attached) => {
                attached.set_automatic(options & AUTOMATIC != 0);
                // SAFETY: the header demands a place for the handle.
                unsafe { reader.write(Box::into_raw(Box::new(attached))) };
                Status::Ok
            }
            Err(problem) => {
                tell_text(error, &problem.to_string());
                Status::from(&problem)
            }
        }
    })
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_clone(
    reader: *const CacheReader,
    copy: *mut *mut CacheReader,
) -> i32 {
    guarded(|| {
        // SAFETY: a handle of `nautilus_attach` that no other thread uses now, or null.
        match unsafe { reader.as_ref() } {
            Some(reader) if !copy.is_null() => {
                // SAFETY: the header demands a place for the handle.
                unsafe { copy.write(Box::into_raw(Box::new(reader.clone()))) };
                Status::Ok
            }
            _ => Status::BadArgument,
        }
    })
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_close(reader: *mut CacheReader) {
    guarded(|| {
        if !reader.is_null() {
            // SAFETY: a handle of `nautilus_attach` or `nautilus_clone`, not closed before.
            drop(unsafe { Box::from_raw(reader) });
        }
        Status::Ok
    });
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_get(
    reader: *mut CacheReader,
    key: *const c_void,
    key_bytes: usize,
    out: *mut c_void,
    out_bytes: usize,
    value: *mut CValue,
) -> i32 {
    guarded(|| {
        // SAFETY: a handle that no other thread uses now, and buffers of these lengths, or null.
        let given = unsafe { (reader.as_mut(), input(key, key_bytes), output(out, out_bytes)) };
        let (Some(reader), Some(key), Some(out)) = given else { return Status::BadArgument };
        let result = reader.get(key, out);
        // SAFETY: null, or a place for a value.
        unsafe { tell(value, CValue::of(result)) };
        status_of(result)
    })
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_get_many(
    reader: *mut CacheReader,
    reads: *mut CRead,
    count: usize,
) -> i32 {
    guarded(|| {
        // SAFETY: a handle that no other thread uses now, or null.
        let Some(reader) = (unsafe { reader.as_mut() }) else { return Status::BadArgument };
        if count == 0 {
            return Status::Ok;
        }
        if reads.is_null() {
            return Status::BadArgument;
        }
        // SAFETY: the header demands an array of this length that is the caller's alone.
        let reads = unsafe { std::slice::from_raw_parts_mut(reads, count) };
        for group in reads.chunks_mut(TOGETHER) {
            let mut asked: [Read<'_>; TOGETHER] = std::array::from_fn(|_| Read::new(&[], &mut []));
            for (read, asked) in group.iter().zip(&mut asked) {
                // SAFETY: buffers of these lengths, or null.
                let given =
                    unsafe { (input(read.key, read.key_bytes), output(read.out, read.out_bytes)) };
                let (Some(key), Some(out)) = given else { return Status::BadArgument };
                *asked = Read::new(key, out);
            }
            let asked = &mut asked[..group.len()];
            reader.get_many(asked);
            for (read, asked) in group.iter_mut().zip(asked) {
                read.value = CValue::of(asked.result);
                read.status = status_of(asked.result) as i32;
            }
        }
        Status::Ok
    })
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_wait_for_change(
    reader: *mut CacheReader,
    key: *const c_void,
    key_bytes: usize,
    last_version: u64,
    timeout_ns: u64,
    out: *mut c_void,
    out_bytes: usize,
    value: *mut CValue,
) -> i32 {
    guarded(|| {
        // SAFETY: a handle that no other thread uses now, and buffers of these lengths, or null.
        let given = unsafe { (reader.as_mut(), input(key, key_bytes), output(out, out_bytes)) };
        let (Some(reader), Some(key), Some(out)) = given else { return Status::BadArgument };
        let timeout = Duration::from_nanos(timeout_ns);
        let result = match reader.wait_for_change(key, last_version, out, timeout) {
            Ok(value) => Ok(value),
            Err(WaitError::Read(error)) => Err(error),
            Err(WaitError::TimedOut) => {
                let unchanged = CValue { version: last_version, ..CValue::default() };
                // SAFETY: null, or a place for a value.
                unsafe { tell(value, unchanged) };
                return Status::TimedOut;
            }
        };
        // SAFETY: null, or a place for a value.
        unsafe { tell(value, CValue::of(result)) };
        status_of(result)
    })
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_reattach(
    reader: *mut CacheReader,
    error: *mut c_char,
    error_bytes: usize,
) -> i32 {
    guarded(|| {
        // SAFETY: a handle that no other thread uses now and a buffer of this size, or null.
        let (reader, error) =
            unsafe { (reader.as_mut(), output(error.cast(), error_bytes).unwrap_or_default()) };
        let Some(reader) = reader else { return Status::BadArgument };
        match reader.reattach() {
            Ok(Reattached::SameMemory) => Status::Ok,
            Ok(Reattached::NewMemory) => Status::NewMemory,
            Err(problem) => {
                tell_text(error, &problem.to_string());
                Status::from(&problem)
            }
        }
    })
}

/// # Safety
///
/// As `nautilus.h` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn nautilus_heartbeat_age_ns(reader: *const CacheReader) -> u64 {
    // SAFETY: a handle that no other thread uses now, or null.
    let age = || unsafe { reader.as_ref() }.map_or(u64::MAX, CacheReader::heartbeat_age_ns);
    catch_unwind(AssertUnwindSafe(age)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
