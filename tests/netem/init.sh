#!/bin/busybox sh
# The guest's first process: the host's files, read only, below a layer of memory, as a machine of its own;
# then the command that the host left in the shared folder.
set -e
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host /top /guest
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in virtio_pci 9pnet_virtio 9p overlay; do modprobe "$module"; done

# What is written in the guest stays in its memory.
nine="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "$nine,ro,cache=loose" host /host
mount -t tmpfs -o mode=755 top /top
mkdir /top/upper /top/work
mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work guest /guest

# The host's own proc, sys, dev and run are not the guest's.
for folder in proc sys dev; do mount --move "/$folder" "/guest/$folder"; done
mount -t tmpfs -o mode=755 run /guest/run
mkdir -p /guest/dev/pts /guest/dev/shm /guest/run/shoal-guest /guest/lib/modules
mount -t devpts -o ptmxmode=666 pts /guest/dev/pts
mount -t tmpfs shm /guest/dev/shm
mount -t 9p -o "$nine" share /guest/run/shoal-guest
mount -t cgroup2 cgroup /guest/sys/fs/cgroup
echo "+cpu +memory +pids" > /guest/sys/fs/cgroup/cgroup.subtree_control

# The kernel loads what is asked of it, as on an installed machine.
. /guest/run/shoal-guest/modules.sh # MODULES=the folder, as seen on the host
ln -sfn "$MODULES" "/guest/lib/modules/$(uname -r)"
cp /bin/busybox /guest/run/busybox
ln -s busybox /guest/run/modprobe
echo /run/modprobe > /guest/proc/sys/kernel/modprobe
echo "shoal: $(cut -d ' ' -f 1 /guest/proc/uptime) s until the host's files are there"

# switch_root, not chroot: the programs that the kernel starts follow it.
exec switch_root /guest /bin/sh /run/shoal-guest/command.sh
