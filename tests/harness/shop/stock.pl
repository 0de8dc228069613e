#!/usr/bin/perl
# Answers every request over connections that are kept; a process for each, as older servers have it.
# usage: stock.pl PORT
use strict;
use warnings;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 64, ReuseAddr => 1, Proto => 'tcp')
    or die "listen: $!";
while (my $client = $server->accept) {
    if (fork) { close $client; next }
    close $server;
    setsockopt $client, IPPROTO_TCP, TCP_NODELAY, 1;
    while (defined(my $line = <$client>)) {
        next unless $line =~ /^\r?\n$/;
        print {$client} "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        $client->flush;
    }
    exit 0;
}
