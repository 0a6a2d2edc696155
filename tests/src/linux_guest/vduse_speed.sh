# Reads blocks of /dev/vda, which our daemon and QEMU's serve in turn, and says how many a second. The clock of the
# machine goes by instructions.

say() { echo "guest: $*"; }
until_true() {
    waited=0
    until "$@" || [ $waited = 100 ]; do sleep 0.1; waited=$((waited + 1)); done
}
is_gone() { ! [ -e "$1" ]; }

mkdir -p /run
mount -t tmpfs tmpfs /tmp
dd if=/dev/urandom of=/tmp/disk bs=1M count=32 2> /dev/null

ours() { vduse-blk "$@" disk0 /tmp/disk 2> /dev/null & }
theirs() {
    qemu-storage-daemon --blockdev file,node-name=file0,filename=/tmp/disk,locking=off,aio=$1 \
        --export vduse-blk,id=export0,node-name=file0,name=disk0,writable=on,queue-size=256 &
}

# read_blocks NAME DEPTH COUNT
read_blocks() {
    took=$(qemu-img bench -f raw -t none -i native -s 4096 -S 20480 -d $2 -c $3 /dev/vda |
        sed -n 's/^Run completed in \([0-9.]*\) seconds.*/\1/p')
    say "$1 depth=$2 reads/s=$(echo "$3 $took" | awk '{ printf "%d", $1 / $2 }')"
}

for round in 1 2; do
    for daemon in ours "ours --split" "theirs threads" "theirs io_uring"; do
        $daemon
        process=$!
        until_true [ -e /dev/vduse/disk0 ]
        vdpa dev add name disk0 mgmtdev vduse
        until_true [ -b /dev/vda ]
        read_blocks "$daemon" 1 200 > /dev/null
        read_blocks "$daemon" 1 1000
        read_blocks "$daemon" 32 8000
        vdpa dev del disk0
        until_true is_gone /dev/vda
        kill $process
        wait $process 2> /dev/null
        case $daemon in ours*) vduse-blk --destroy disk0 ;; esac
        until_true is_gone /dev/vduse/disk0
    done
done
