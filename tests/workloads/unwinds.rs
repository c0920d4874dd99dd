// SPDX-License-Identifier: Apache-2.0

//! unwinds N: calls of `panics`, of which a quarter is left by a panic that `main` catches.
use std::io::{stdin, stdout, Write};
use std::panic::{catch_unwind, set_hook};

#[no_mangle]
#[inline(never)]
pub extern "Rust" fn panics(n: u64) -> u64 {
    if n % 4 == 0 {
        panic!("left");
    }
    std::hint::black_box(n)
}

fn main() {
    let n: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut line = String::new();
    set_hook(Box::new(|_| {}));
    println!("ready {}", std::process::id());
    stdout().flush().unwrap();
    stdin().read_line(&mut line).unwrap();
    let returned = (0..n).filter(|i| catch_unwind(|| panics(*i)).is_ok()).count() as u64;
    println!("done {} {}", returned, n - returned);
    stdout().flush().unwrap();
    stdin().read_line(&mut line).unwrap();
}
