//! Makes the bench kernel bootable.

fn main() {
    boot::link();
}
