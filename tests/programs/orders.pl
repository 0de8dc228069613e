# A small shop's orders: counts them in Redis; a process for each connection. Logs what it said and heard.
#
# orders.pl PORT REDIS_PORT LOG
use strict;
use warnings;
use IO::Socket::INET;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my ($port, $redis_port, $log_path) = @ARGV;
$SIG{CHLD} = 'IGNORE';
open(my $log, '>>', $log_path) or die "open $log_path: $!";
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1)
    or die "listen at $port: $!";
while (my $client = $listener->accept) {
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) { serve($client); exit 0 }
    close $client;
}

sub serve {
    my ($client) = @_;
    my $redis = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $redis_port) or die "redis: $!";
    my ($opened, $request) = (1, '');
    while (sysread($client, $request, 65536, length $request)) {
        next unless $request =~ /\r\n\r\n\z/;
        $request = '';
        my $ask = "*2\r\n\$4\r\nINCR\r\n\$6\r\norders\r\n";
        my $start = clock_gettime(CLOCK_MONOTONIC);
        syswrite $redis, $ask;
        my ($answer, $first) = ('', undef);
        until ($answer =~ /\r\n\z/) {
            sysread($redis, $answer, 4096, length $answer) or die 'redis closed';
            $first //= clock_gettime(CLOCK_MONOTONIC);
        }
        # One write to a file that is appended to: lines of several processes stay whole.
        syswrite $log, sprintf(qq({"to":"redis","out":%d,"in":%d,"ns":%d,"opened":%d}\n),
            length $ask, length $answer, ($first - $start) * 1e9, $opened);
        $opened = 0;
        my $body = 'z' x 500;
        syswrite $client, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n$body";
    }
}
