//! Makes the guest test kernel bootable.

fn main() {
    boot::link();
}
