/* The least that any command costs its caller: a static program is executed and ends. */
int main(void)
{
	return 0;
}
