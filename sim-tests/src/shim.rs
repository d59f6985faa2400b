//! The C library's clock and random source, interposed.
//!
//! The executable's own symbols win over those of the C library, for std and for every crate, `getrandom` included.
//! Inside a simulation ([`entropy::enter_simulation`]) the three functions below answer from the thread's simulated
//! state; outside they ask the kernel. They are in the binary only: a library must not do this to its users.
//!
//! The simulated clock needs no guard against re-entry: it reads a thread-local number and calls nothing.

use std::arch::asm;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::time::Duration;

use millstream_sim_tests::entropy;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the shim speaks Linux system calls on x86-64; teach `kernel` this platform's");

/// A system call, as the kernel answers it: a result, or a negated errno.
///
/// # Safety
/// As the system call demands of its arguments.
unsafe fn kernel(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: this is the kernel's calling convention; it clobbers rcx and r11 and returns in rax.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call, as the C library answers it: a result, or -1 and errno.
///
/// # Safety
/// As for [`kernel`].
unsafe fn libc_style(number: c_long, arguments: [c_long; 6]) -> c_long {
    // SAFETY: promised by the caller.
    let result = unsafe { kernel(number, arguments) };
    if !(-4095..0).contains(&result) {
        return result;
    }
    // SAFETY: the C library returns a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() = -result as c_int };
    -1
}

/// Fills the caller's buffer with simulated random bytes, if this thread is in a simulation.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
unsafe fn fill(buffer: *mut c_void, length: usize) -> bool {
    if length == 0 {
        return false;
    }
    // SAFETY: promised by the caller; bytes have no invalid values, and they are only written.
    entropy::fill_hidden_random(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), length) })
}

/// `getrandom(2)`.
///
/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    // SAFETY: the caller promises a buffer of this length.
    unsafe {
        if fill(buffer, length) {
            return length as isize;
        }
        libc_style(libc::SYS_getrandom, [buffer as c_long, length as c_long, flags.into(), 0, 0, 0]) as isize
    }
}

/// `syscall(2)`: some crates ask for random bytes this way. The C function is variadic; with whole-word arguments its
/// callers use the same registers as for this signature, and arguments they did not pass are not looked at.
///
/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: the caller promises valid arguments for the system call.
    unsafe {
        if number == libc::SYS_getrandom && fill(a as *mut c_void, b as usize) {
            return b;
        }
        libc_style(number, [a, b, c, d, e, f])
    }
}

/// `clock_gettime(2)`. Clocks of CPU time stay real: they are for measuring.
///
/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let simulated = entropy::hidden_time().and_then(|now| match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => Some(now.wall),
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            Some(now.monotonic)
        }
        _ => None,
    });
    // SAFETY: the caller promises that `time` is valid for a write.
    unsafe {
        if let Some(now) = simulated {
            time.write(timespec(now));
            return 0;
        }
        libc_style(libc::SYS_clock_gettime, [clock.into(), time as c_long, 0, 0, 0, 0]) as c_int
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: c_long::from(time.subsec_nanos() as i32) }
}
