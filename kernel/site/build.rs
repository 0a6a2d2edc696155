//! Links the unikernel as a bootable image.

fn main() {
    boot::link();
}
