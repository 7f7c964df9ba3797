//! A library to load before that of C: the wall clock of its process is as many seconds ahead as the file says
//! that `MOVABLE_CLOCK` names. The monotonic clock goes on as it is, as when somebody sets the time of a machine.
//!
//! Not part of the workspace: `mod.rs` beside it has it compiled.

use std::{
    ffi::{c_char, c_int, c_long, c_void},
    path::PathBuf,
    sync::OnceLock,
};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

type Read = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// # Safety
///
/// As the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    static REAL: OnceLock<Read> = OnceLock::new();
    let real = REAL.get_or_init(|| {
        // SAFETY: the next library that has a function of this name is C's.
        unsafe {
            let found = dlsym(NEXT, c"clock_gettime".as_ptr());
            assert!(!found.is_null(), "no clock_gettime");
            std::mem::transmute::<*mut c_void, Read>(found)
        }
    });
    // SAFETY: what the caller promises.
    unsafe {
        let result = real(clock, time);
        if clock == REALTIME && result == 0 {
            (*time).seconds += ahead();
        }
        result
    }
}

fn ahead() -> i64 {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("MOVABLE_CLOCK").map(PathBuf::from));
    let text = file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

const REALTIME: c_int = 0;
const NEXT: *mut c_void = -1_isize as *mut c_void;
