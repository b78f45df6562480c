sub same { return $_[0]; }
sub count_arguments { return scalar(@_); }
sub a_list { return (4, 5, 6); }
sub an_array { my @a = (4, 5, 6); return @a; }
sub nothing { return undef; }
sub empty { return ''; }
sub zero { return 0; }
sub utf8 { return "na\303\257ve"; }
sub lines { return "a\nb\n"; }
sub dead { die 'oh no'; }
sub dead_newline { die "oh no\n"; }
sub expand { return Exim::expand_string($_[0]); }
sub expand_eval { my $r = eval { Exim::expand_string($_[0]) }; return defined $r ? $r : 'caught'; }
1;
